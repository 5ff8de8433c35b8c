//! Scheduling on both sides, and what a task carries.

use delayline_core::{
    Attempts, ClaimedTask, Due, ErrorKind, GroupName, Headers, NewTask, OnConflict, Result as Answer, ScheduleOutcome,
    Scheduled, Support,
};

use super::ops::{Sketch, Span, When};
use super::reference::{Now, Sure, Task, line};
use super::world::{Checked, World, same, us, wrong};

impl World<'_> {
    pub(super) async fn schedule(&mut self, by: usize, sketches: &[Sketch]) -> Checked {
        let tasks: Vec<(NewTask, usize)> = sketches.iter().map(|sketch| self.new_task(sketch)).collect();
        let began = self.now();
        let sent = tasks.iter().map(|(task, _)| task.clone()).collect();
        let answers =
            self.clients[by].schedule(&self.queue, sent).await.or_else(|e| wrong(format!("schedule: {e}")))?;
        let now = self.until_now(began);
        let call = self.next_call();
        same("LOSS-3: answers to schedule", answers.len(), tasks.len())?;
        for ((task, bytes), answer) in tasks.into_iter().zip(answers) {
            self.scheduled(&now, call, task, bytes, answer)?;
            self.checks += 1;
        }
        Ok(())
    }

    fn new_task(&mut self, sketch: &Sketch) -> (NewTask, usize) {
        self.numbers += 1;
        let room = self.t.caps().payload_bytes_max.saturating_sub(NUMBER_BYTES);
        let bytes = usize::from(sketch.bytes).min(room);
        let mut task = NewTask::new(self.due(sketch.due), payload(self.numbers, bytes));
        task.id = sketch.key.map(|key| self.t.id(format!("key-{key}")));
        task.expires = sketch.expires.map(|span| match sketch.due {
            // In real time, nobody could tell whether it has expired until the next tick.
            When::After(_) if span.ticks == 0 && !self.t.is_virtual() => {
                self.due(When::After(Span { ticks: 1, ..span }))
            }
            When::After(_) => self.due(When::After(span)),
            When::At(_) | When::Past(_) => self.due(When::At(span)),
        });
        task.group = sketch.group.map(room_name);
        if sketch.header {
            task.headers.insert("number", self.numbers.to_string()).expect("a short header");
        }
        if let Some(attempts) = sketch.attempts {
            task.attempts_max = Attempts::new(attempts).expect("a few attempts");
        }
        if sketch.replace {
            task.on_conflict = OnConflict::Replace;
        }
        (task, bytes)
    }

    /// The errors that a task may be refused with, and whether it must be.
    fn refusals(&self, now: &Now, task: &NewTask) -> (Vec<ErrorKind>, bool) {
        let caps = self.t.caps();
        let mut kinds = vec![];
        let mut surely = false;
        let mut note = |kind, sure: Sure| {
            if sure.maybe() {
                kinds.push(kind);
                surely |= sure == Sure::Yes;
            }
        };
        note(ErrorKind::Unsupported, (task.group.is_some() && caps.groups == Support::Unsupported).into());
        let replace = task.on_conflict == OnConflict::Replace;
        note(ErrorKind::Unsupported, (replace && caps.replace == Support::Unsupported).into());
        note(ErrorKind::OutOfRange, self.too_far(now, task.due));
        if let Some(expires) = task.expires {
            // How far an expiry may lie is not declared.
            let far = self.too_far(now, expires).maybe();
            note(ErrorKind::OutOfRange, if far { Sure::Maybe } else { Sure::No });
            let early = match (task.due, expires) {
                (Due::After(due), Due::After(expires)) => expires < due,
                (Due::At(due), Due::At(expires)) => expires < due,
                _ => false,
            };
            note(ErrorKind::Invalid, early.into());
        }
        (kinds, surely)
    }

    fn scheduled(&mut self, now: &Now, call: u32, task: NewTask, bytes: usize, answer: Answer<Scheduled>) -> Checked {
        let number = number_of(&task.payload).unwrap_or(0);
        let (kinds, surely) = self.refusals(now, &task);
        let accepted = match answer {
            Err(e) if kinds.contains(&e.kind()) => return Ok(()),
            Err(e) => return wrong(format!("task {number} was refused: {e}; the model says {kinds:?}")),
            Ok(accepted) if surely => {
                return wrong(format!("task {number} was accepted as {accepted:?}; the model says {kinds:?}"));
            }
            Ok(accepted) => accepted,
        };
        if let Some(id) = &task.id {
            same("the id of a scheduled task", accepted.id(), id)?;
            self.model.make_way(id);
        }
        let there = task.id.as_ref().and_then(|id| self.model.by_id(id));
        self.check_outcome(now, &task, there, accepted.outcome)?;
        match accepted.outcome {
            ScheduleOutcome::Existing => {
                self.refs.extend(there.map(|at| (accepted.task, self.model.tasks[at].seq)));
                return Ok(());
            }
            ScheduleOutcome::Replaced => drop(there.map(|at| self.model.tasks.remove(at))),
            _ => {}
        }
        if task.id.is_none() && self.refs.iter().any(|(earlier, _)| earlier.id == *accepted.id()) {
            return wrong(format!("the id {} was given twice", accepted.id()));
        }
        let place = self.place(now, task.due, call);
        if let Some(due_at) = accepted.task.due_at {
            self.check_shown("`due_at` of a scheduled task", now, due_at, place)?;
        }
        let seq = self.model.next_seq();
        self.model.tasks.push(Task {
            number,
            id: accepted.id().clone(),
            seq,
            place,
            attempt: 0,
            attempts_max: task.attempts_max.get(),
            expires: task.expires.map(|expires| self.place(now, expires, call)),
            group: task.group,
            headers: task.headers,
            bytes,
            last_failure: None,
            lease: None,
            known_to: None,
            cancelled: false,
        });
        self.refs.push((accepted.task, seq));
        Ok(())
    }

    fn check_outcome(&self, now: &Now, task: &NewTask, there: Option<usize>, got: ScheduleOutcome) -> Checked {
        let caps = self.t.caps();
        let number = number_of(&task.payload).unwrap_or(0);
        let expected = match there {
            // Without unique ids, one may stand for several tasks.
            Some(_) if caps.unique_ids != Support::Definite => return Ok(()),
            Some(_) if task.on_conflict == OnConflict::Replace => ScheduleOutcome::Replaced,
            Some(_) => ScheduleOutcome::Existing,
            None => ScheduleOutcome::Created,
        };
        let window = us(caps.retry_window);
        let at = task
            .id
            .as_ref()
            .and_then(|id| self.model.completed.iter().rev().find(|(completed, _)| completed == id).map(|(_, at)| *at));
        if let (None, Some(at), true) = (there, at, window > 0) {
            // DUP-11; after the window, and for a replacement, either is right.
            let kept = task.on_conflict == OnConflict::Keep && now.to - at < window;
            return if kept { same("DUP-11: the outcome", got, ScheduleOutcome::Existing) } else { Ok(()) };
        }
        same(&format!("the outcome of task {number}"), got, expected)
    }

    /// What was delivered against what was scheduled (LOSS-5).
    pub(super) fn check_content(&self, now: &Now, task: &Task, got: &ClaimedTask) -> Checked {
        let what = line(now, task);
        same(&format!("LOSS-5: the id of {what}"), &got.lease.id, &task.id)?;
        if *got.payload != *payload(task.number, task.bytes) {
            return wrong(format!("LOSS-5: the payload of {what} has changed"));
        }
        same::<&Headers>(&format!("LOSS-5: headers of {what}"), &got.headers, &task.headers)?;
        same::<&Option<GroupName>>(&format!("LOSS-5: group of {what}"), &got.group, &task.group)?;
        same(&format!("LOSS-5: attempts allowed of {what}"), got.attempts_max, task.attempts_max)?;
        same(&format!("DUP-12: the attempt of {what}"), got.lease.attempt, task.attempt + 1)?;
        match (got.expires_at, task.expires) {
            (Some(shown), Some(expires)) => self.check_shown("`expires_at`", now, shown, expires),
            (shown, expires) => same(&format!("expiry of {what}"), shown.is_some(), expires.is_some()),
        }
    }
}

const NUMBER_BYTES: usize = 8;

/// A payload that tells its task, and differs in every byte position from one task to the next.
pub(super) fn payload(number: usize, bytes: usize) -> Vec<u8> {
    let mut payload = format!("{number:0NUMBER_BYTES$}").into_bytes();
    payload.resize(NUMBER_BYTES + bytes, (number % 251) as u8);
    payload
}

pub(super) fn number_of(payload: &[u8]) -> Option<usize> {
    std::str::from_utf8(payload.get(..NUMBER_BYTES)?).ok()?.parse().ok()
}

pub(super) fn room_name(group: u8) -> GroupName {
    GroupName::new(format!("room-{group}")).expect("a short name")
}
