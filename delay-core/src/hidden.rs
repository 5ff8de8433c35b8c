//! What `Debug` shows instead of a payload: its size.

use std::fmt;

/// Bytes whose content may be a secret.
pub(crate) struct Hidden(pub(crate) usize);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::{
        Bytes, ClaimedTask, DeadLetter, DeadLetterCause, Headers, Lease, NewTask, Reason, Receipt, TaskId, TaskRef,
        TaskState, TaskView, Timestamp,
    };

    #[test]
    fn clear_4_debug_shows_neither_payload_nor_the_values_of_headers() {
        let (id, at) = (TaskId::new("anna").unwrap(), Timestamp::from_unix_millis(7));
        let payload = Bytes::from_static(b"hunter2");
        let mut headers = Headers::new();
        headers.insert("token", "hunter2").unwrap();

        let new = NewTask::new(Duration::ZERO, payload.clone()).id(id.clone()).headers(headers.clone());
        let lease = Lease::new(id.clone(), 1, 1, at, Receipt::NONE);
        let mut claimed = ClaimedTask::new(lease, at, Duration::ZERO, payload.clone());
        claimed.headers = headers.clone();
        let task = TaskRef::new(id.clone(), at, Receipt::NONE);
        let mut view = TaskView::new(task, TaskState::Pending, at, payload.clone());
        view.headers = headers.clone();
        let mut letter = DeadLetter::new(id, DeadLetterCause::Expired, Reason::new("late"), at, payload);
        letter.headers = headers;

        for shown in [format!("{new:?}"), format!("{claimed:?}"), format!("{view:?}"), format!("{letter:?}")] {
            assert!(!shown.contains("hunter2"), "{shown}");
            let secret: Vec<String> = b"hunter2".iter().map(u8::to_string).collect();
            assert!(!shown.contains(&secret.join(", ")), "{shown}");
            assert!(shown.contains("payload: 7 bytes") && shown.contains(r#"{"token": 7 bytes}"#), "{shown}");
            assert!(shown.contains("anna"), "{shown}");
        }
    }
}
