//! Changing more tasks than one call takes.

use crate::client::answers::spread;
use crate::client::line::Line;
use crate::{Change, Changed, Result, Select, TaskRef};

/// Changes tasks, in as many calls as they need; see [`Queue::change`](super::Queue::change).
///
/// Each call has an operation id that follows from the change's own and its place. So repeated with the same tasks, each
/// goes on where it stopped, and a call whose tasks are others than they were is refused by the store.
pub(super) async fn change_tasks(line: &Line, mut tasks: Vec<TaskRef>, change: Change) -> Result<Changed> {
    let mut all = Changed::default();
    for number in 0.. {
        let later = tasks.split_off(tasks.len().min(line.batch_max()));
        if number == 0 && later.is_empty() {
            return line.backend.change(&line.name, Select::Tasks(tasks), change).await;
        }
        let asked = tasks.len();
        let piece = Change { operation: change.operation.map(|id| id.of_piece(number)), ..change.clone() };
        let answer = line.backend.change(&line.name, Select::Tasks(tasks), piece).await.map(|changed| changed.outcomes);
        let failed = answer.is_err();
        // What was not sent yet would most likely fail in the same way, each after its own time-out.
        let answered = if failed { asked + later.len() } else { asked };
        if failed && number == 0 {
            return answer.map(|_| all);
        }
        for outcome in spread(answer, answered) {
            all.count(&outcome);
            all.outcomes.push(outcome);
        }
        if failed || later.is_empty() {
            break;
        }
        tasks = later;
    }
    Ok(all)
}
