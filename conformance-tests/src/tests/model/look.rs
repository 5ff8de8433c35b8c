//! What the backend shows against what is in the model, and the end of a trace, when everything must come out.

use std::collections::BTreeSet;

use delayline_core::{
    AdminOp, Change, DeadLetter, DeadLetterCause, DeadLetterOp, Disposition, Lease, Order, Page, Select, Support,
    TaskId, TaskRef, TaskState, TaskView,
};

use super::ops::Span;
use super::reference::{Dead, MS, Now, Place, Sure, Task, check_listing, line};
use super::schedule::payload;
use super::world::{Checked, Stop, World, same, us, wrong};

impl World<'_> {
    pub(super) async fn find(&mut self, by: usize, ago: u8) -> Checked {
        let Some(id) = Self::recent(&self.refs, ago).map(|(task, _)| task.id.clone()) else { return Ok(()) };
        self.find_id(by, &id).await
    }

    async fn find_id(&mut self, by: usize, id: &TaskId) -> Checked {
        let began = self.now();
        let answer = self.clients[by].find(&self.queue, id).await;
        let now = self.until_now(began);
        self.checks += 1;
        if Self::lacking(&[self.t.caps().inspect], &answer)? || self.t.caps().unique_ids != Support::Definite {
            return Ok(());
        }
        let there = self.model.tasks.iter().position(|task| task.id == *id && !task.over(&now));
        match (answer.or_else(|e| wrong(format!("find: {e}")))?, there) {
            (Some(view), Some(at)) => self.check_view(&now, at, &view),
            (None, None) => Ok(()),
            (Some(view), None) => wrong(format!("CLEAR-8: find shows {view:?}, and no {id} is there")),
            (None, Some(at)) => wrong(format!("CLEAR-8: find does not show {}", line(&now, &self.model.tasks[at]))),
        }
    }

    fn check_view(&mut self, now: &Now, at: usize, view: &TaskView) -> Checked {
        let task = &self.model.tasks[at];
        let what = line(now, task);
        same(&format!("the id of {what}"), &view.task.id, &task.id)?;
        let expected = match (task.leased(now), task.cancelled) {
            (Sure::Maybe, _) => return Err(Stop::Unclear("a lease that may have ended".into())),
            (Sure::No, _) => TaskState::Pending,
            (Sure::Yes, false) => TaskState::InFlight,
            (Sure::Yes, true) => TaskState::Cancelling,
        };
        same(&format!("the state of {what}"), view.state, expected)?;
        let numbers = |a, b| (a, b);
        same(
            &format!("(attempt, of) of {what}"),
            numbers(view.attempt, view.attempts_max),
            numbers(task.attempt, task.attempts_max),
        )?;
        if *view.payload != *payload(task.number, task.bytes) {
            return wrong(format!("the payload of {what} is shown otherwise"));
        }
        same(&format!("group of {what}"), &view.group, &task.group)?;
        same(&format!("headers of {what}"), &view.headers, &task.headers)?;
        same(&format!("expiry of {what}"), view.expires_at.is_some(), task.expires.is_some())?;
        if let Some(reason) = &task.last_failure {
            same(&format!("the last failure of {what}"), view.last_failure.as_ref(), Some(reason))?;
        }
        self.check_shown(&format!("`visible_at` of {what}"), now, view.visible_at, task.place)?;
        if self.exact() && matches!(task.place, Place::Mono { from, to, .. } if from < to) {
            // Due as of then or as of now: the store has chosen.
            let shown = view.visible_at.unix_micros() - now.wall;
            self.model.tasks[at].place = Place::Mono { from: shown, to: shown, call: 0 };
        }
        Ok(())
    }

    pub(super) async fn list(&mut self, by: usize, limit: usize) -> Checked {
        let began = self.now();
        let mut views: Vec<TaskView> = vec![];
        let mut page = Page::first(limit);
        loop {
            let answer = self.clients[by].list(&self.queue, page).await;
            if Self::lacking(&[self.t.caps().inspect], &answer)? {
                return Ok(());
            }
            let some = answer.or_else(|e| wrong(format!("list: {e}")))?;
            if some.len() > limit || views.len() > self.model.tasks.len() {
                return wrong(format!("CLEAR-9: {} entries in a page of {limit}, after {}", some.len(), views.len()));
            }
            let Some(last) = some.last() else { break };
            page = Page::after(last, limit);
            views.extend(some);
        }
        let now = self.until_now(began);
        let mut seen: Vec<usize> = vec![];
        for view in &views {
            let number = super::schedule::number_of(&view.payload);
            let at = number.and_then(|number| self.model.by_number(number));
            let Some(at) = at.filter(|at| !self.model.tasks[*at].over(&now)) else {
                return wrong(format!("CLEAR-9: a listing shows {view:?}, which is not there"));
            };
            self.check_view(&now, at, view)?;
            if seen.contains(&at) {
                return wrong(format!("CLEAR-9: a listing shows {} twice", line(&now, &self.model.tasks[at])));
            }
            seen.push(at);
            self.checks += 1;
        }
        let listed: Vec<&Task> = seen.iter().map(|&at| &self.model.tasks[at]).collect();
        check_listing(&now, self.t.caps().order, &listed).or_else(|e| wrong(format!("CLEAR-9: in a listing, {e}")))?;
        let missing = (0..self.model.tasks.len()).find(|at| !seen.contains(at) && !self.model.tasks[*at].over(&now));
        missing
            .map_or(Ok(()), |at| wrong(format!("CLEAR-9: a listing leaves out {}", line(&now, &self.model.tasks[at]))))
    }

    pub(super) async fn letters(&mut self, by: usize, limit: usize) -> Checked {
        let mut letters: Vec<DeadLetter> = vec![];
        let mut after = None;
        loop {
            let answer = self.clients[by].dead_letters(&self.queue, DeadLetterOp::List { after, limit }).await;
            self.checks += 1;
            if Self::lacking(&[self.t.caps().dead_letters], &answer)? {
                return Ok(());
            }
            let page = answer.or_else(|e| wrong(format!("listing dead letters: {e}")))?;
            if page.letters.len() > limit || letters.len() > self.model.dead.len() {
                return wrong(format!("{} dead letters in a page of {limit}", page.letters.len()));
            }
            letters.extend(page.letters);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        // Shards count their burials each for itself, and agree on the time alone.
        let exact = self.t.caps().order == Order::Exact;
        let surely_before = |a: &Dead, b: &Dead| if exact { a.call < b.call } else { a.at.1 + MS < b.at.0 };
        let mut seen: Vec<&Dead> = vec![];
        for letter in &letters {
            let number = super::schedule::number_of(&letter.payload);
            let Some(dead) = self.model.dead.iter().find(|dead| Some(dead.task.number) == number) else {
                return wrong(format!("LOSS-6: {letter:?} is no dead letter"));
            };
            if seen.iter().any(|other| other.task.number == dead.task.number || surely_before(dead, other)) {
                return wrong(format!("LOSS-6: {letter:?} stands at the wrong place among the dead letters"));
            }
            check_letter(dead, letter)?;
            seen.push(dead);
            self.checks += 1;
        }
        let seen: Vec<usize> = seen.into_iter().map(|dead| dead.task.number).collect();
        same("LOSS-6: how many dead letters there are", letters.len(), self.model.dead.len())?;
        // Those that may stand in either order are redriven in the one that is shown.
        self.model.dead.sort_by_key(|dead| seen.iter().position(|number| *number == dead.task.number));
        Ok(())
    }

    pub(super) async fn stats(&mut self, by: usize) -> Checked {
        let began = self.now();
        let answer = self.clients[by].stats(&self.queue).await;
        let now = self.until_now(began);
        self.checks += 1;
        if Self::lacking(&[self.t.caps().stats], &answer)? {
            return Ok(());
        }
        let stats = answer.or_else(|e| wrong(format!("stats: {e}")))?;
        let of = |which: &dyn Fn(&Task) -> bool| self.model.tasks.iter().filter(|task| which(task)).count() as u64;
        let pending = |task: &Task| task.leased(&now) == Sure::No && !task.over(&now);
        let (leased, waiting) = (of(&|task| task.leased(&now) == Sure::Yes), of(&pending));
        same("CLEAR-10: in flight", stats.in_flight, leased)?;
        same("CLEAR-10: scheduled and due", stats.scheduled + stats.due, waiting)?;
        let due = of(&|task| pending(task) && now.reached(task.place) == Sure::Yes);
        let perhaps_due = of(&|task| pending(task) && now.reached(task.place).maybe());
        if stats.due < due || stats.due > perhaps_due {
            return wrong(format!("CLEAR-10: {} due, the model says {due}..={perhaps_due}", stats.due));
        }
        if let Some(within) = stats.due_within
            && (!within.counts().is_sorted() || within.day > stats.scheduled)
        {
            return wrong(format!("CLEAR-10: {within:?} of {} scheduled", stats.scheduled));
        }
        same("CLEAR-10: dead letters", stats.dead, self.model.dead.len() as u64)?;
        same("CLEAR-10: paused", stats.paused, self.model.paused)?;
        same("CLEAR-10: dropped and quarantined", (stats.dead_dropped, stats.quarantined), (0, 0))?;
        same("CLEAR-10: whether any is due", stats.oldest_due.is_some(), stats.due > 0)?;
        same("CLEAR-10: whether any is scheduled", stats.next_due_in.is_some(), stats.scheduled > 0)?;
        let next = self.model.tasks.iter().filter(|task| pending(task) && now.reached(task.place) == Sure::No);
        let slack = if self.t.is_virtual() { now.slop } else { now.slop + us(self.t.caps().resolution) + MS };
        match (next.map(|task| now.span(task.place).1).min(), stats.next_due_in) {
            (Some(next), Some(told)) if us(told) > next - now.from + slack => {
                wrong(format!("CLEAR-10: the next task is due in {told:?}, the model says {} us", next - now.from))
            }
            _ => Ok(()),
        }
    }

    pub(super) async fn queues(&mut self, by: usize) -> Checked {
        let answer = self.clients[by].queues().await;
        let now = self.now();
        self.checks += 1;
        if Self::lacking(&[self.t.caps().stats], &answer)? {
            return Ok(());
        }
        let queues = answer.or_else(|e| wrong(format!("queues: {e}")))?;
        if !queues.is_sorted() {
            return wrong(format!("queues are not listed by name: {queues:?}"));
        }
        let listed = queues.contains(&self.queue);
        let consumed = self.subscriptions.iter().any(|(client, _)| *client == by || !self.t.is_shared());
        let holds = consumed || !self.model.dead.is_empty() || self.model.paused;
        let holds = holds || self.model.tasks.iter().any(|task| !task.over(&now));
        if holds != listed && (holds || (self.model.is_empty() && self.subscriptions.is_empty() && !self.dropped)) {
            return wrong(format!("LEAK-4: the queue is listed: {listed}; the model says {holds}"));
        }
        Ok(())
    }

    /// Takes everything out, and looks that nothing is left.
    pub(super) async fn drain(&mut self) -> Checked {
        let ids: BTreeSet<TaskId> = self.refs.iter().map(|(task, _)| task.id.clone()).collect();
        for id in ids {
            self.find_id(0, &id).await?;
        }
        self.list(0, 50).await?;
        self.letters(0, 50).await?;
        self.stats(0).await?;
        self.redrive(0, None, false).await?;
        self.list(0, 50).await?;
        self.pause(0, false).await?;
        let leases = std::mem::take(&mut self.leases);
        for batch in leases.chunks(20) {
            let mut dispositions: Vec<(Lease, usize, Disposition)> = vec![];
            for (lease, number) in batch {
                // A lease and its extension are one. Fences tell the claims of one id apart, not one id from another.
                let is_same = |other: &Lease| other.id == lease.id && other.fence == lease.fence;
                if !dispositions.iter().any(|(other, _, _)| is_same(other)) {
                    dispositions.push((lease.clone(), *number, Disposition::Complete));
                }
            }
            self.settle_these(0, dispositions).await?;
        }
        self.drain_waiting().await?;
        self.purge(0, None).await?;
        self.list(0, 50).await?;
        self.stats(0).await?;
        while !self.subscriptions.is_empty() {
            self.leave(0, true).await?;
        }
        self.queues(0).await?;
        if self.model.tasks.is_empty() {
            self.history.drained(&self.queue);
        } else {
            // Too far away to be waited for, and not to be cancelled.
            self.delete(0).await?;
        }
        Ok(())
    }

    async fn drain_waiting(&mut self) -> Checked {
        const IDLE_MAX: u32 = 100;
        let mut idle = 0;
        loop {
            let now = self.now();
            self.model.tasks.retain(|task| !task.over(&now));
            let waits = self.model.tasks.iter().map(|task| now.span(task.place).1 - now.from).min();
            let Some(wait) = waits else { return Ok(()) };
            let ticks = (wait.max(0) + self.tick_us() - 1) / self.tick_us();
            if ticks > 100 {
                return self.cancel_all().await;
            }
            self.pass(u64::try_from(ticks).unwrap_or(0)).await?;
            let before = self.model.tasks.len();
            self.claim(0, 0, 100, None, Span { ticks: 20, fine: 0, fraction: false }).await?;
            let leases = std::mem::take(&mut self.leases);
            let dispositions =
                leases.into_iter().map(|(lease, number)| (lease, number, Disposition::Complete)).collect();
            self.settle_these(0, dispositions).await?;
            idle = if self.model.tasks.len() < before { 0 } else { idle + 1 };
            if idle > IDLE_MAX {
                let left = line(&now, &self.model.tasks[0]);
                return wrong(format!("LOSS-1: {left} does not come, after {IDLE_MAX} claims"));
            }
        }
    }

    /// Cancels what is too far away to be waited for. Where that can only be asked for, it stays.
    async fn cancel_all(&mut self) -> Checked {
        if self.t.caps().cancel == Support::Requested {
            return Ok(());
        }
        let refs: Vec<TaskRef> = self.refs.iter().map(|(task, _)| task.clone()).collect();
        for task in refs {
            let answer = self.clients[0].change(&self.queue, Select::Tasks(vec![task.clone()]), Change::cancel()).await;
            if Self::lacking(&[self.t.caps().cancel], &answer)? {
                return Ok(());
            }
            answer.or_else(|e| wrong(format!("cancelling {}: {e}", task.id)))?;
        }
        let mut left = std::mem::take(&mut self.model.tasks);
        // One that was redriven is known by no reference.
        left.retain(|task| self.refs.iter().all(|(_, seq)| *seq != task.seq));
        self.model.tasks = left;
        if !self.model.tasks.is_empty() && self.t.caps().delete == Support::Definite {
            let answer = self.clients[0].administer(&self.queue, AdminOp::Delete).await;
            answer.or_else(|e| wrong(format!("delete: {e}")))?;
            self.model.tasks.clear();
            self.model.dead.clear();
        }
        Ok(())
    }
}

fn check_letter(dead: &Dead, letter: &DeadLetter) -> Checked {
    let task = &dead.task;
    let what = format!("dead letter {} ({}), dead-lettered by call {}", task.number, task.id, dead.call);
    same(&format!("the id of {what}"), &letter.id, &task.id)?;
    match dead.cause {
        Some(cause) => same(&format!("the cause of {what}"), letter.cause, cause)?,
        None if letter.cause != DeadLetterCause::Requested => {}
        None => return wrong(format!("the cause of {what} is {:?}", letter.cause)),
    }
    if let Some(reason) = &dead.reason {
        same(&format!("the reason of {what}"), letter.reason.as_str(), reason)?;
    }
    same(&format!("the attempts of {what}"), letter.attempts, task.attempt)?;
    if *letter.payload != *payload(task.number, task.bytes) {
        return wrong(format!("the payload of {what} has changed"));
    }
    same(&format!("group of {what}"), &letter.group, &task.group)?;
    same(&format!("headers of {what}"), &letter.headers, &task.headers)?;
    // Shown in whole milliseconds by some.
    let (from, to) = (dead.at.0 - MS, dead.at.1 + MS);
    if !(from..=to).contains(&letter.dead_lettered_at.unix_micros()) {
        return wrong(format!("{what} was dead-lettered at {}, the model says {from}..{to}", letter.dead_lettered_at));
    }
    Ok(())
}
