//! Changes, dead letters and the rules of a queue on both sides.

use delayline_core::{
    Action, AdminOp, Change, ChangeOutcome, Changed, DeadLetterOp, DeadLetterSelect, Error, ErrorKind, OperationId,
    Result as Answer, Select, Shift, Support, TaskId, TaskRef,
};

use super::ops::{Named, To};
use super::reference::{MS, Now, Place, Sure, Task, line};
use super::schedule::room_name;
use super::world::{Checked, Operation, Stop, World, bare, kind_of, same, us, wrong};

impl World<'_> {
    fn action(&self, to: To) -> Action {
        let by = |ticks: u64, fraction: bool| {
            let tick = std::time::Duration::from_micros(self.tick_us().unsigned_abs());
            let ticks = u32::try_from(ticks).unwrap_or(u32::MAX);
            tick.saturating_mul(ticks) + std::time::Duration::from_micros(if fraction { 300 } else { 0 })
        };
        match to {
            To::Cancel => Action::Cancel,
            To::Move(when) => Action::MoveTo(self.due(when)),
            To::Later(ticks, fraction) => Action::Shift(Shift::Later(by(ticks, fraction))),
            To::Sooner(ticks, fraction) => Action::Shift(Shift::Sooner(by(ticks, fraction))),
        }
    }

    fn support_of(&self, action: Action) -> Support {
        match action {
            Action::Cancel => self.t.caps().cancel,
            Action::MoveTo(_) | Action::Shift(_) => self.t.caps().reschedule,
            _ => unreachable!("one that the suite does not know"),
        }
    }

    pub(super) async fn change_tasks(&mut self, by: usize, tasks: &[Named], to: To, operation: bool) -> Checked {
        let caps = self.t.caps();
        let ids_suffice = !caps.change_needs_receipt && caps.unique_ids == Support::Definite;
        let mut chosen: Vec<(TaskRef, u64)> = vec![];
        for named in tasks {
            let Some((task, seq)) = Self::recent(&self.refs, named.task) else { continue };
            if chosen.iter().all(|(other, _)| other.id != task.id) {
                let by_id = named.by_id && ids_suffice;
                chosen.push((if by_id { bare(&task.id) } else { task.clone() }, *seq));
            }
        }
        let action = self.action(to);
        let support = self.support_of(action);
        if support == Support::Requested {
            return Ok(());
        }
        let operation = operation.then(|| self.t.operation());
        let select = Select::Tasks(chosen.iter().map(|(task, _)| task.clone()).collect());
        let (now, answer) = self.send_change(by, &select, action, operation).await;
        if Self::lacking(&[support], &answer)? {
            return Ok(());
        }
        let Some(changed) = self.in_range(&now, action, answer)? else { return Ok(()) };
        self.check_outcomes(&now, &chosen, action, &changed)?;
        self.note_operation(&now, operation, select, action, changed);
        Ok(())
    }

    async fn send_change(
        &mut self,
        by: usize,
        select: &Select,
        action: Action,
        operation: Option<OperationId>,
    ) -> (Now, Answer<Changed>) {
        let mut change = Change::of(action);
        change.operation = operation;
        let began = self.now();
        let answer = self.clients[by].change(&self.queue, select.clone(), change).await;
        self.checks += 1;
        (self.until_now(began), answer)
    }

    /// What was answered, unless a move was beyond the range, and refused for it (CANCEL-10).
    fn in_range(&self, now: &Now, action: Action, answer: Answer<Changed>) -> Checked<Option<Changed>> {
        let too_far = match action {
            Action::MoveTo(due) => self.too_far(now, due),
            Action::Cancel | Action::Shift(_) => Sure::No,
            _ => unreachable!("one that the suite does not know"),
        };
        match answer {
            Err(e) if e.kind() == ErrorKind::OutOfRange && too_far.maybe() => Ok(None),
            Err(e) => wrong(format!("{action:?}: {e}")),
            Ok(changed) if too_far == Sure::Yes => {
                wrong(format!("CANCEL-10: {action:?} is out of range and answered {changed:?}"))
            }
            Ok(changed) => Ok(Some(changed)),
        }
    }

    fn check_outcomes(&mut self, now: &Now, chosen: &[(TaskRef, u64)], action: Action, got: &Changed) -> Checked {
        same("CANCEL-1: answers to a change", got.outcomes.len(), chosen.len())?;
        let mut tally = Changed::default();
        for ((task, seq), outcome) in chosen.iter().zip(&got.outcomes) {
            let by_id = task.receipt.to_vec().is_empty();
            let at = if by_id { self.model.by_id(&task.id) } else { self.model.by_seq(*seq) };
            let what =
                at.map_or_else(|| format!("{}, which is not there", task.id), |at| line(now, &self.model.tasks[at]));
            let expected = self.change_model(now, at, action, Some(outcome))?;
            same(&format!("CANCEL: {action:?} of {what}"), kind_of(outcome), expected)?;
            tally.count(outcome);
            self.checks += 1;
        }
        same("CANCEL-1: the counts of a change", counts(got), counts(&tally))
    }

    /// Changes one task of the model; `got` decides where either answer is right.
    fn change_model(
        &mut self,
        now: &Now,
        at: Option<usize>,
        action: Action,
        got: Option<&Answer<ChangeOutcome>>,
    ) -> Checked<Result<ChangeOutcome, ErrorKind>> {
        let Some(at) = at else { return Ok(Ok(ChangeOutcome::NotFound)) };
        let task = &mut self.model.tasks[at];
        if task.over(now) {
            self.model.tasks.remove(at);
            return Ok(Ok(ChangeOutcome::NotFound));
        }
        let leased = match task.leased(now) {
            Sure::Maybe => return Err(Stop::Unclear("a lease that may have ended".into())),
            sure => sure == Sure::Yes,
        };
        if leased {
            task.cancelled |= action == Action::Cancel;
            return Ok(Ok(ChangeOutcome::InFlight));
        }
        let task = task.clone();
        let place = match action {
            Action::Cancel => {
                self.model.tasks.remove(at);
                return Ok(Ok(ChangeOutcome::Changed));
            }
            Action::MoveTo(due) => self.place(now, due, 0),
            Action::Shift(by) => shifted(now, &task, by),
            _ => unreachable!("one that the suite does not know"),
        };
        // The range of a move has been checked for all at once.
        let too_far = if matches!(action, Action::Shift(_)) { self.place_too_far(now, place) } else { Sure::No };
        let refused = match (too_far, got) {
            (Sure::Maybe, None) => return Err(Stop::Unclear("a shift that may be out of range".into())),
            (Sure::Maybe, Some(got)) => got.as_ref().is_err_and(|e| e.kind() == ErrorKind::OutOfRange),
            (sure, _) => sure == Sure::Yes,
        };
        if refused {
            return Ok(Err(ErrorKind::OutOfRange));
        }
        // CANCEL-4: a lease that has ended is lost.
        self.model.tasks[at] = Task { place, lease: None, known_to: None, ..task };
        Ok(Ok(ChangeOutcome::Changed))
    }

    pub(super) async fn change_group(&mut self, by: usize, group: u8, to: To, operation: bool) -> Checked {
        let action = self.action(to);
        let needs = [self.t.caps().groups, self.support_of(action)];
        if needs.contains(&Support::Requested) {
            return Ok(());
        }
        let operation = operation.then(|| self.t.operation());
        let group = room_name(group);
        let select = Select::Group(group.clone());
        let (now, answer) = self.send_change(by, &select, action, operation).await;
        if Self::lacking(&needs, &answer)? {
            return Ok(());
        }
        let Some(changed) = self.in_range(&now, action, answer)? else { return Ok(()) };
        let members: Vec<usize> = self
            .model
            .tasks
            .iter()
            .filter(|task| task.group.as_ref() == Some(&group))
            .map(|task| task.number)
            .collect();
        // Of tasks that are over, a store may still meet what it kept.
        let over =
            self.model.tasks.iter().filter(|task| task.group.as_ref() == Some(&group) && task.over(&now)).count();
        let mut tally = Changed::default();
        for number in members {
            let at = self.model.by_number(number);
            let outcome = self.change_model(&now, at, action, None)?;
            if outcome != Ok(ChangeOutcome::NotFound) {
                tally.count(&outcome.map_err(|kind| Error::new(kind, "out of range")));
            }
        }
        if changed.not_found <= over as u64 {
            tally.not_found = changed.not_found;
        }
        let what = format!("CANCEL-6: {action:?} of {group} (changed, in flight, not found, requested, refused)");
        same(&what, counts(&changed), counts(&tally))?;
        same("CANCEL-6: answers to single tasks of a group", changed.outcomes.len(), 0)?;
        let refusal = changed.first_refusal.as_ref().map(Error::kind);
        same("CANCEL-10: the first refusal", refusal, (tally.refused > 0).then_some(ErrorKind::OutOfRange))?;
        self.note_operation(&now, operation, select, action, changed);
        Ok(())
    }

    fn note_operation(
        &mut self,
        now: &Now,
        operation: Option<OperationId>,
        select: Select,
        action: Action,
        answer: Changed,
    ) {
        let begun = now.from;
        self.operations.extend(operation.map(|id| Operation { id, select, action, answer, begun }));
    }

    /// An operation of before that is remembered for certain.
    fn remembered(&self, ago: u8) -> Option<Operation> {
        let operation = Self::recent(&self.operations, ago)?;
        let window = us(self.t.caps().operation_window);
        // Where time is real, the call must end within it too.
        let margin = if self.t.is_virtual() { 0 } else { self.tick_us() * 10 };
        (self.now().to - operation.begun + margin < window).then(|| operation.clone())
    }

    pub(super) async fn repeat(&mut self, by: usize, ago: u8) -> Checked {
        let Some(Operation { id, select, action, answer, .. }) = self.remembered(ago) else { return Ok(()) };
        let (now, again) = self.send_change(by, &select, action, Some(id)).await;
        // A move is out of range now that was not, after a step of the wall clock.
        let Some(again) = self.in_range(&now, action, again)? else { return Ok(()) };
        let kinds = |changed: &Changed| changed.outcomes.iter().map(kind_of).collect::<Vec<_>>();
        same("CANCEL-7: the answers to a repeated operation", kinds(&again), kinds(&answer))?;
        same("CANCEL-7: the counts of a repeated operation", counts(&again), counts(&answer))
    }

    pub(super) async fn misuse(&mut self, by: usize, ago: u8) -> Checked {
        let Some(Operation { id, .. }) = self.remembered(ago) else { return Ok(()) };
        if self.t.caps().groups != Support::Definite {
            return Ok(());
        }
        let (_, answer) = self.send_change(by, &Select::Group(room_name(99)), Action::Cancel, Some(id)).await;
        match answer {
            Err(e) if e.kind() == ErrorKind::Invalid => Ok(()),
            other => wrong(format!("CANCEL-8: an operation id for another change answered {other:?}")),
        }
    }

    fn dead_ids(&self, ids: Option<&[u8]>) -> Option<Vec<TaskId>> {
        let ids = ids?;
        Some(ids.iter().filter_map(|ago| Self::recent(&self.refs, *ago).map(|(task, _)| task.id.clone())).collect())
    }

    pub(super) async fn redrive(&mut self, by: usize, ids: Option<&[u8]>, staggered: bool) -> Checked {
        self.letters(by, 50).await?;
        let ids = self.dead_ids(ids);
        let select = ids.clone().map_or(DeadLetterSelect::All, DeadLetterSelect::Ids);
        // One a tick; in real time, such a task would come due while a step is made.
        let rate = (staggered && self.t.is_virtual()).then(|| 1e6 / self.tick_us() as f64);
        let began = self.now();
        let answer = self.clients[by].dead_letters(&self.queue, DeadLetterOp::Redrive { select, rate }).await;
        let now = self.until_now(began);
        let call = self.next_call();
        self.checks += 1;
        if Self::lacking(&[self.t.caps().dead_letters], &answer)? {
            return Ok(());
        }
        let answer = answer.or_else(|e| wrong(format!("redrive: {e}")))?;
        let (mut affected, mut kept) = (0u64, 0u64);
        // Without unique ids, a letter comes back beside a task of its id.
        let unique = self.t.caps().unique_ids == Support::Definite;
        for dead in std::mem::take(&mut self.model.dead) {
            if ids.as_ref().is_some_and(|ids| !ids.contains(&dead.task.id)) {
                self.model.dead.push(dead);
                continue;
            }
            self.model.make_way(&dead.task.id);
            if unique && self.model.by_id(&dead.task.id).is_some() {
                self.model.dead.push(dead);
                kept += 1;
                continue;
            }
            let wait = if rate.is_some() { affected * self.tick_us().unsigned_abs() } else { 0 };
            let place = self.after(&now, std::time::Duration::from_micros(wait), call);
            let seq = self.model.next_seq();
            let task = Task {
                seq,
                place,
                attempt: 0,
                expires: None,
                last_failure: None,
                lease: None,
                known_to: None,
                ..dead.task
            };
            self.model.tasks.push(task);
            affected += 1;
        }
        same("LOSS-7: (redriven, kept)", (answer.affected, answer.kept), (affected, kept))
    }

    pub(super) async fn purge(&mut self, by: usize, ids: Option<&[u8]>) -> Checked {
        let ids = self.dead_ids(ids);
        let select = ids.clone().map_or(DeadLetterSelect::All, DeadLetterSelect::Ids);
        let answer = self.clients[by].dead_letters(&self.queue, DeadLetterOp::Purge { select }).await;
        self.checks += 1;
        if Self::lacking(&[self.t.caps().dead_letters], &answer)? {
            return Ok(());
        }
        let answer = answer.or_else(|e| wrong(format!("purge: {e}")))?;
        let before = self.model.dead.len();
        self.model.dead.retain(|dead| ids.as_ref().is_some_and(|ids| !ids.contains(&dead.task.id)));
        same("LOSS-6: purged", answer.affected, (before - self.model.dead.len()) as u64)
    }

    pub(super) async fn pause(&mut self, by: usize, paused: bool) -> Checked {
        let op = if paused { AdminOp::Pause } else { AdminOp::Resume };
        let answer = self.clients[by].administer(&self.queue, op).await;
        self.checks += 1;
        if !Self::lacking(&[self.t.caps().pause], &answer)? {
            answer.or_else(|e| wrong(format!("{op:?}: {e}")))?;
            self.model.paused = paused;
        }
        Ok(())
    }

    pub(super) async fn delete(&mut self, by: usize) -> Checked {
        let answer = self.clients[by].administer(&self.queue, AdminOp::Delete).await;
        self.checks += 1;
        if !Self::lacking(&[self.t.caps().delete], &answer)? {
            answer.or_else(|e| wrong(format!("delete: {e}")))?;
            self.model.tasks.clear();
            self.model.dead.clear();
            self.model.paused = false;
        }
        Ok(())
    }
}

fn counts(changed: &Changed) -> [u64; 5] {
    [changed.changed, changed.in_flight, changed.not_found, changed.requested, changed.refused]
}

/// CANCEL-5: later is rounded up to the millisecond, sooner down.
fn shifted(now: &Now, task: &Task, by: Shift) -> Place {
    let by = match by {
        Shift::Later(by) => us(by).saturating_add(MS - 1) / MS * MS,
        Shift::Sooner(by) => -(us(by) / MS * MS),
        _ => unreachable!("one that the suite does not know"),
    };
    match task.place {
        Place::Wall(at) => Place::Wall(at + by),
        // What lands in the past is due at once: whether as of then or as of now is the store's choice.
        Place::Mono { from, to, .. } if by < 0 && from + by < now.to => {
            Place::Mono { from: from + by, to: (to + by).max(now.to), call: 0 }
        }
        Place::Mono { from, to, call } => Place::Mono { from: from + by, to: to + by, call },
    }
}
