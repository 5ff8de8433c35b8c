//! Claims, settling and extension on both sides. What a claim brought is checked for being allowed, and then adopted.

use std::time::Duration;

use delayline_core::{
    Claim, Claimed, ClaimedTask, DeadLetterCause, Disposition, Error, ErrorKind, Lease, LeaseHold, Order,
    Result as Answer, Support,
};

use super::ops::{Ending, Span};
use super::reference::{Held, MS, Now, Sure, Task, before, check_order, line};
use super::schedule::number_of;
use super::world::{Checked, Stop, World, same, us, wrong};

/// How often something that is due may be asked for in vain.
const CLAIMS_MAX: u32 = 10;

impl World<'_> {
    pub(super) async fn claim(
        &mut self,
        by: usize,
        subscription: u8,
        max: usize,
        max_bytes: Option<usize>,
        lease: Span,
    ) -> Checked<usize> {
        if self.subscriptions.is_empty() {
            self.open(by).await?;
        }
        let lease = self.length(lease);
        let mut claim = Claim::new(max, lease);
        claim.max_bytes = max_bytes.unwrap_or(claim.max_bytes);
        let at = usize::from(subscription) % self.subscriptions.len();
        for _ in 0..CLAIMS_MAX {
            let came = self.claim_once(at, claim).await?;
            // A claim may bring fewer than are due, but not nothing again and again.
            if came > 0 || !self.owes(&claim) {
                return Ok(came);
            }
            if !self.t.is_virtual() {
                if self.in_time().is_err() {
                    // Whether it comes at all is seen when everything is taken out.
                    return Ok(0);
                }
                self.subscriptions[at].1.wait(Duration::from_millis(5)).await;
            }
        }
        if self.t.is_virtual() {
            wrong(format!("LOSS-1: {CLAIMS_MAX} claims bring nothing of what is due"))
        } else {
            Ok(0)
        }
    }

    /// Whether a claim that brought nothing should have.
    fn owes(&self, claim: &Claim) -> bool {
        let now = self.now();
        let there =
            |task: &Task| now.reached(task.place) == Sure::Yes && !task.cancelled && task.doomed(&now) == Sure::No;
        claim.max > 0
            && claim.lease <= self.t.caps().lease_max
            && !self.model.paused
            && self.model.tasks.iter().any(there)
    }

    async fn claim_once(&mut self, at: usize, claim: Claim) -> Checked<usize> {
        let lease = claim.lease;
        let began = self.now();
        let (by, subscription) = &mut self.subscriptions[at];
        let (by, answer) = (*by, subscription.claim(claim).await);
        let now = self.until_now(began);
        let call = self.next_call();
        self.checks += 1;
        let claimed = match answer {
            Err(e) if lease > self.t.caps().lease_max && e.kind() == ErrorKind::OutOfRange => return Ok(0),
            Err(e) => return wrong(format!("claim: {e}")),
            Ok(claimed) if lease > self.t.caps().lease_max => {
                return wrong(format!("TIME-2: a lease beyond the range was given: {claimed:?}"));
            }
            Ok(claimed) => claimed,
        };
        self.adopt(&now, call, by, claim, claimed).await
    }

    /// Holds a claim against the model, then does the same to the model.
    async fn adopt(&mut self, now: &Now, call: u32, by: usize, claim: Claim, claimed: Claimed) -> Checked<usize> {
        let came = claimed.deliveries.len();
        same("foreign entries that were quarantined", claimed.quarantined, 0)?;
        if self.model.paused {
            same("LIVE-12: what a claim brought that must bring nothing", (came, claimed.dead_lettered), (0, 0))?;
            return Ok(0);
        }
        if came > claim.max {
            return wrong(format!("BOUND-9: {came} tasks for a claim of {}", claim.max));
        }
        let bytes: usize = claimed.deliveries.iter().map(|task| task.payload.len()).sum();
        if bytes > claim.max_bytes && came > 1 {
            return wrong(format!("BOUND-9: {bytes} bytes in {came} tasks for a claim of {}", claim.max_bytes));
        }
        let delivered =
            claimed.deliveries.iter().map(|task| self.delivered(now, task)).collect::<Checked<Vec<Task>>>()?;
        if let Some(twice) = (1..came).find(|&i| delivered[..i].iter().any(|t| t.number == delivered[i].number)) {
            return wrong(format!("DUP-1: {} came twice in one claim", line(now, &delivered[twice])));
        }
        let full =
            came == claim.max || claimed.next_due_in == Some(Duration::ZERO) || came > 0 && bytes >= claim.max_bytes;
        self.dead_lettered(now, call, &delivered, claimed.dead_lettered, full).await?;
        self.check_delivery(now, &delivered)?;
        for task in &claimed.deliveries {
            self.lease(now, by, claim.lease, task)?;
        }
        if claim.max > 0 {
            self.check_next_due(now, by, claimed.next_due_in)?;
        }
        self.checks += came as u64;
        Ok(came)
    }

    /// The model's task that was delivered, if it may be.
    fn delivered(&self, now: &Now, got: &ClaimedTask) -> Checked<Task> {
        let number = number_of(&got.payload);
        let Some(at) = number.and_then(|number| self.model.by_number(number)) else {
            return wrong(format!("task {number:?} ({}) was delivered and should not be there", got.lease.id));
        };
        let task = self.model.tasks[at].clone();
        let what = line(now, &task);
        if now.reached(task.place) == Sure::No {
            let promise = if task.lease.is_some() { "DUP-1" } else { "TIME-1" };
            return wrong(format!("{promise}: {what} was delivered at {}..{} us", now.from, now.to));
        }
        if task.cancelled {
            return wrong(format!("CANCEL-3: {what} was delivered"));
        }
        if task.doomed(now) == Sure::Yes {
            return wrong(format!(
                "{what} was delivered, and should have been dead-lettered for {:?}",
                task.cause(now)
            ));
        }
        self.check_content(now, &task, got)?;
        self.check_shown(&format!("`due_at` of {what}"), now, got.due_at, task.place)?;
        let (from, to) = now.span(task.place);
        let late = us(got.lateness);
        let slack = if self.t.is_virtual() { now.slop } else { now.slop + MS };
        if late < now.from - to - slack || late > now.to - from + slack {
            return wrong(format!("`lateness` of {what} is {late} us at {}..{}", now.from, now.to));
        }
        same(&format!("`cancelled` of {what}"), got.lease.cancelled, false)?;
        match self.model.fences.get(&task.id) {
            Some(&fence) if fence >= got.lease.fence => {
                wrong(format!("DUP-6: fence {} after {fence} for {what}", got.lease.fence))
            }
            _ => Ok(task),
        }
    }

    /// Takes what a claim dead-lettered out of the model: as many as it says, from the front.
    async fn dead_lettered(
        &mut self,
        now: &Now,
        call: u32,
        delivered: &[Task],
        dead_lettered: u64,
        full: bool,
    ) -> Checked {
        let came = |task: &Task| delivered.iter().any(|came| came.number == task.number);
        let perhaps = self.model.ranked(now, |task| {
            task.doomed(now).maybe() && now.reached(task.place).maybe() && !task.cancelled && !came(task)
        });
        let surely: Vec<usize> = perhaps.iter().copied().filter(|&at| is_doomed(now, &self.model.tasks[at])).collect();
        let dead_lettered = usize::try_from(dead_lettered).unwrap_or(usize::MAX);
        let exact = self.t.caps().order == Order::Exact;
        let met = |&&at: &&usize| delivered.iter().any(|task| before(now, &self.model.tasks[at], task));
        let (at_least, at_most) = match full {
            false => (surely.len(), perhaps.len()),
            true if exact => (surely.iter().filter(met).count(), perhaps.len()),
            true => (0, perhaps.len()),
        };
        if dead_lettered < at_least || dead_lettered > at_most {
            return wrong(format!("a claim dead-lettered {dead_lettered}, the model says {at_least}..={at_most}"));
        }
        for number in self.which_were_dead_lettered(now, &perhaps, dead_lettered).await? {
            let Some(at) = self.model.by_number(number) else { continue };
            let cause = self.model.tasks[at].cause(now);
            self.model.dead_letter(now, call, at, cause, None);
        }
        Ok(())
    }

    /// The numbers of the tasks that a claim dead-lettered, of those that it may have. Where it left some, and it is not
    /// known which it met, the store is asked.
    async fn which_were_dead_lettered(
        &self,
        now: &Now,
        perhaps: &[usize],
        dead_lettered: usize,
    ) -> Checked<Vec<usize>> {
        let task = |at: usize| &self.model.tasks[at];
        let (first, others) = perhaps.split_at(dead_lettered);
        let is_front = |a: usize| is_doomed(now, task(a)) && others.iter().all(|&b| before(now, task(a), task(b)));
        let in_order = || self.t.caps().order == Order::Exact && first.iter().all(|&a| is_front(a));
        if first.is_empty() || others.is_empty() || in_order() {
            return Ok(first.iter().map(|&at| task(at).number).collect());
        }
        if self.t.caps().inspect != Support::Definite {
            return Err(Stop::Unclear("a claim dead-lettered some of those that it may have met".into()));
        }
        let mut gone = vec![];
        for &at in perhaps {
            let (id, number) = (&task(at).id, task(at).number);
            let found = self.clients[0].find(&self.queue, id).await.or_else(|e| wrong(format!("find: {e}")))?;
            if found.is_none_or(|view| number_of(&view.payload) != Some(number)) {
                gone.push(number);
            }
        }
        same(
            "LOSS-6: how many of the tasks that a claim may dead-letter are there no more",
            gone.len(),
            dead_lettered,
        )?;
        Ok(gone)
    }

    /// ORDER-1, of what came and of what was left behind.
    fn check_delivery(&self, now: &Now, delivered: &[Task]) -> Checked {
        let left = self.model.ranked(now, |task| {
            let there = now.reached(task.place) == Sure::Yes && !task.cancelled && task.doomed(now) == Sure::No;
            there && delivered.iter().all(|came| came.number != task.number)
        });
        let left = left.into_iter().map(|at| &self.model.tasks[at]);
        let sequence: Vec<&Task> = delivered.iter().chain(left).collect();
        check_order(now, self.t.caps().order, &sequence).or_else(|e| wrong(format!("ORDER-1: {e}")))
    }

    fn lease(&mut self, now: &Now, by: usize, length: Duration, got: &ClaimedTask) -> Checked {
        let Some(at) = number_of(&got.payload).and_then(|number| self.model.by_number(number)) else { return Ok(()) };
        let ends = self.after(now, length, 0);
        self.check_shown("the end of a new lease", now, got.lease.expires_at, ends)?;
        let task = &mut self.model.tasks[at];
        task.lease = Some(Held { fence: got.lease.fence, old: task.place });
        task.known_to = Some(by);
        task.place = ends;
        task.attempt += 1;
        self.model.fences.insert(task.id.clone(), got.lease.fence);
        self.leases.push((got.lease.clone(), task.number));
        Ok(())
    }

    /// A sleeper wakes at the next visible task at the latest. A store that can't be looked into notifications for what
    /// others sent.
    fn check_next_due(&self, now: &Now, by: usize, told: Option<Duration>) -> Checked {
        let looks = self.t.caps().inspect == Support::Definite;
        let known = |task: &&Task| !task.cancelled && (looks || task.known_to == Some(by));
        let next = self.model.tasks.iter().filter(known).map(|task| now.span(task.place).1).min();
        let slack = if self.t.is_virtual() { now.slop } else { now.slop + us(self.t.caps().resolution) + MS };
        match (next, told) {
            (Some(next), Some(told)) if us(told) > (next - now.from).max(0) + slack => {
                wrong(format!("LIVE-1: `next_due_in` is {told:?}, a task is visible in {} us", next - now.from))
            }
            (Some(next), None) if looks => {
                wrong(format!("LIVE-1: `next_due_in` is None, a task is visible in {} us", next - now.from))
            }
            _ => Ok(()),
        }
    }

    /// Whether a lease is lost because it has ended, where that is final (DUP-16).
    fn may_be_final(&self, now: &Now, task: &Task, e: &Error) -> bool {
        let ended = now.reached(task.place).maybe();
        self.t.caps().lease_hold == LeaseHold::Connection && ended && e.kind() == ErrorKind::LeaseLost
    }

    /// The model's task of a lease that is still its holder's.
    fn holder(&self, lease: &Lease, number: usize) -> Option<usize> {
        let at = self.model.by_number(number)?;
        self.model.tasks[at].lease.filter(|held| held.fence == lease.fence).map(|_| at)
    }

    pub(super) async fn settle(&mut self, by: usize, endings: &[(u8, Ending)]) -> Checked {
        let mut chosen: Vec<(Lease, usize, Disposition)> = vec![];
        for (ago, ending) in endings {
            let Some((lease, number)) = Self::recent(&self.leases, *ago) else { continue };
            if chosen.iter().any(|(other, _, _)| other.id == lease.id && other.fence == lease.fence) {
                continue;
            }
            let after = |span: &Span| self.length(*span).min(self.t.caps().delay_max);
            let disposition = match ending {
                Ending::Complete => Disposition::Complete,
                Ending::Retry(span) => {
                    Disposition::Retry { after: after(span), reason: format!("failed {number}").into() }
                }
                Ending::Snooze(span) => Disposition::Snooze { after: after(span) },
                Ending::DeadLetter => Disposition::DeadLetter { reason: format!("poison {number}").into() },
                Ending::Release => Disposition::Release,
            };
            chosen.push((lease.clone(), *number, disposition));
        }
        self.settle_these(by, chosen).await
    }

    pub(super) async fn settle_these(&mut self, by: usize, chosen: Vec<(Lease, usize, Disposition)>) -> Checked {
        let dispositions: Vec<_> =
            chosen.iter().map(|(lease, _, disposition)| (lease.clone(), disposition.clone())).collect();
        let began = self.now();
        let answers = self.clients[by].settle(&self.queue, dispositions).await;
        let now = self.until_now(began);
        let call = self.next_call();
        let answers = answers.or_else(|e| wrong(format!("settle: {e}")))?;
        same("LOSS-3: answers to settle", answers.len(), chosen.len())?;
        for ((lease, number, disposition), answer) in chosen.into_iter().zip(answers) {
            self.settled(&now, call, &lease, number, disposition, answer)?;
            self.checks += 1;
        }
        Ok(())
    }

    fn settled(
        &mut self,
        now: &Now,
        call: u32,
        lease: &Lease,
        number: usize,
        disposition: Disposition,
        answer: Answer<()>,
    ) -> Checked {
        let Some(at) = self.holder(lease, number) else { return lost("settle", lease, &answer) };
        let task = self.model.tasks[at].clone();
        if task.over(now) {
            // What is kept of it, if anything, goes.
            self.model.tasks.remove(at);
            return Ok(());
        }
        if let Err(e) = answer {
            if self.may_be_final(now, &task, &e) {
                return Ok(());
            }
            return wrong(format!("{disposition:?} of {}: {e}", line(now, &task)));
        }
        let held = task.lease.map(|held| held.old);
        match disposition {
            _ if task.cancelled => drop(self.model.tasks.remove(at)),
            Disposition::Complete => {
                self.model.completed.push((task.id.clone(), now.to));
                self.model.tasks.remove(at);
            }
            Disposition::Retry { reason, .. } if task.attempt >= task.attempts_max => {
                self.model.dead_letter(now, call, at, Some(DeadLetterCause::AttemptsUsedUp), Some(reason.to_string()));
            }
            Disposition::DeadLetter { reason } => {
                self.model.dead_letter(now, call, at, Some(DeadLetterCause::Requested), Some(reason.to_string()));
            }
            Disposition::Retry { after, reason } => {
                let place = self.after(now, after, 0);
                let last_failure = Some(reason.to_string());
                self.model.tasks[at] = Task { place, lease: None, last_failure, ..task };
            }
            Disposition::Snooze { after } => {
                let place = self.after(now, after, 0);
                self.model.tasks[at] = Task { place, lease: None, attempt: task.attempt - 1, ..task };
            }
            Disposition::Release => {
                let place = held.unwrap_or(task.place);
                self.model.tasks[at] = Task { place, lease: None, known_to: None, attempt: task.attempt - 1, ..task };
            }
            _ => unreachable!("one that the suite does not know"),
        }
        Ok(())
    }

    pub(super) async fn extend(&mut self, by: usize, leases: &[u8], length: Span) -> Checked {
        let mut chosen: Vec<(Lease, usize)> = vec![];
        for ago in leases {
            let Some((lease, number)) = Self::recent(&self.leases, *ago) else { continue };
            if !chosen.iter().any(|(other, _)| other.id == lease.id && other.fence == lease.fence) {
                chosen.push((lease.clone(), *number));
            }
        }
        let length = self.length(length);
        let began = self.now();
        let sent = chosen.iter().map(|(lease, _)| lease.clone()).collect();
        let answers = self.clients[by].extend(&self.queue, sent, length).await;
        let now = self.until_now(began);
        self.checks += 1;
        if Self::lacking(&[self.t.caps().extend], &answers)? {
            return Ok(());
        }
        let answers = match answers {
            Err(e) if length > self.t.caps().lease_max && e.kind() == ErrorKind::OutOfRange => return Ok(()),
            Err(e) => return wrong(format!("extend: {e}")),
            Ok(_) if length > self.t.caps().lease_max => return wrong("TIME-2: an extension beyond the range"),
            Ok(answers) => answers,
        };
        same("LOSS-3: answers to extend", answers.len(), chosen.len())?;
        for ((lease, number), answer) in chosen.into_iter().zip(answers) {
            self.extended(&now, &lease, number, length, answer)?;
            self.checks += 1;
        }
        Ok(())
    }

    fn extended(&mut self, now: &Now, lease: &Lease, number: usize, by: Duration, answer: Answer<Lease>) -> Checked {
        let Some(at) = self.holder(lease, number) else { return lost("extend", lease, &answer) };
        let task = self.model.tasks[at].clone();
        let what = line(now, &task);
        let extended = match answer {
            Err(_) if task.over(now) => {
                self.model.tasks.remove(at);
                return Ok(());
            }
            Err(e) if self.may_be_final(now, &task, &e) => return Ok(()),
            Err(e) => return wrong(format!("DUP-5: extension of {what}: {e}")),
            Ok(extended) => extended,
        };
        let place = self.after(now, by, 0);
        // DUP-7: never shortened.
        let longer = now.span(place).0 > now.span(task.place).0;
        let place = if longer { place } else { task.place };
        same(&format!("DUP-7: the fence of {what}"), (extended.fence, extended.attempt), (lease.fence, lease.attempt))?;
        same(&format!("DUP-7: the id of {what}"), &extended.id, &lease.id)?;
        same(&format!("CANCEL-3: `cancelled` of {what}"), extended.cancelled, task.cancelled)?;
        self.check_shown(&format!("DUP-7: the new end of {what}"), now, extended.expires_at, place)?;
        self.model.tasks[at].place = place;
        self.leases.push((extended, number));
        Ok(())
    }
}

/// Whether a claim that meets it dead-letters it, and it is due, for certain.
fn is_doomed(now: &Now, task: &Task) -> bool {
    task.doomed(now) == Sure::Yes && now.reached(task.place) == Sure::Yes && !task.cancelled
}

fn lost<T: std::fmt::Debug>(call: &str, lease: &Lease, answer: &Answer<T>) -> Checked {
    match answer {
        Err(e) if e.kind() == ErrorKind::LeaseLost => Ok(()),
        other => wrong(format!(
            "DUP-4: {call} under fence {} of {}, which is stale, answered {other:?}",
            lease.fence, lease.id
        )),
    }
}
