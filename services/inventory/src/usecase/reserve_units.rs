//! Reserves units for orders: the script in Redis grants them, the ledger commits the grants, then the caller is
//! answered.
//!
//! A batch of reservations stays together: it makes one script call an event, and its grants are committed together. A
//! refusal by the script never reaches the database, unless the buyer has or had units of the item: then the order may
//! be a repeat, which the ledger shows.

use super::{
    Error, Reconcile, SyncRedis,
    absent_events::{Absence, AbsentEvents},
    commit_grants::{CommitGrants, Committed},
    script_permits::ScriptPermits,
};
use crate::{
    domain::{Grant, Label, OrderedLine, Refusal, RefusalReason, ReservationOutcome, ReservedUnits},
    store::{self, ledger::StoredEntry},
};
use futures_util::{future::join_all, join};
use stampede_db::{Database, DbError};
use stampede_lua::{
    RedisError,
    stock::{Cause, Decision, Hold, InLedger, Reservation, Stock, WantedLine},
};
use stampede_vocab::{EventId, ItemId, OrderId, Timestamp};
use std::collections::HashMap;

/// Most look-ups of a known buyer's order in the ledger. Another follows only if a change of the buyer's units reached
/// Redis between a look-up and the script.
const MAX_LOOK_UPS: usize = 3;

/// A reservation with the event that its items are of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventReservation {
    pub event_id: EventId,
    /// The lines of one order.
    pub reservation: Reservation,
}

/// The answer to one reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reserved {
    /// The units are in the ledger.
    Units {
        units: ReservedUnits,
        /// Price and titles of each line.
        labels: Vec<Label>,
        /// Names this request in a release; `None` if the order is known to be written.
        request_time: Option<Timestamp>,
    },
    /// Nothing is taken.
    Refused(Refusal),
}

/// Reserves units. Clones share the queues into the ledger.
#[derive(Clone)]
pub struct ReserveUnits {
    db: Database,
    redis: Stock,
    permits: ScriptPermits,
    absent: AbsentEvents,
    reconcile: Reconcile,
    commit: CommitGrants,
}

impl ReserveUnits {
    /// Returns the use case on this Redis and the ledger of this schema. Needs a tokio runtime.
    pub fn new(db: Database, redis: Stock, sync: SyncRedis, reconcile: Reconcile) -> Self {
        let commit = CommitGrants::new(db.clone(), sync, reconcile.clone());
        Self {
            absent: AbsentEvents::new(db.clone()),
            reconcile,
            permits: ScriptPermits::new(redis.is_cluster()),
            db,
            redis,
            commit,
        }
    }

    /// Decides each reservation on its own. Returns the answers in the order given. One that could not be decided is
    /// NOT_READY, and may be retried; fails if none could be. After a failure some may be in the ledger all the same: a
    /// retry gets the same answer, and without one a sweep gives the units back.
    pub async fn run(&self, wanted: Vec<EventReservation>) -> Result<Vec<Reserved>, Error> {
        let decided = self.decide(&wanted).await;
        let all =
            wanted.iter().zip(decided).enumerate().map(|(index, (wanted, decided))| Pending { index, wanted, decided });
        // Concurrently, so that look-ups in the database do not delay the others.
        let (known, others): (Vec<_>, Vec<_>) = all.partition(|pending| pending.decided.is_of_known_buyer());
        let (absent, ready): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|pending| pending.decided.is_event_absent());
        let (known, absent, ready) =
            join!(self.answer_known(known), self.answer_absent(absent), self.answer_ready(ready));
        let mut answers: Vec<Answered> = known.into_iter().chain(absent).chain(ready).collect();
        answers.sort_unstable_by_key(|(index, _)| *index);
        let answers: Vec<_> = answers.into_iter().map(|(_, answer)| answer).collect();
        if let Some(error) = common_failure(&answers) {
            return Err(error);
        }
        warn_of_failures(&answers);
        let undecided = || Reserved::Refused(Refusal::of_order(RefusalReason::NotReady));
        Ok(answers.into_iter().map(|answer| answer.unwrap_or_else(|_| undecided())).collect())
    }

    /// Calls the script once for each event.
    async fn decide(&self, wanted: &[EventReservation]) -> Vec<Decided> {
        let mut by_event: HashMap<EventId, (Vec<usize>, Vec<Reservation>)> = HashMap::new();
        for (index, EventReservation { event_id, reservation }) in wanted.iter().enumerate() {
            let (indexes, reservations) = by_event.entry(*event_id).or_default();
            indexes.push(index);
            reservations.push(reservation.clone());
        }
        let calls = by_event.into_iter().map(|(event, (indexes, reservations))| async move {
            let decided: Vec<Decided> = match self.decide_event(event, &reservations).await {
                Ok(decisions) => decisions.into_iter().map(Decided::of).collect(),
                Err(error) => vec![Decided::Failed(error); indexes.len()],
            };
            indexes.into_iter().zip(decided)
        });
        let mut decided: Vec<(usize, Decided)> = join_all(calls).await.into_iter().flatten().collect();
        decided.sort_unstable_by_key(|(index, _)| *index);
        decided.into_iter().map(|(_, decided)| decided).collect()
    }

    /// Calls the script once it has a permit. Fails soon if Redis is overloaded.
    async fn decide_event(
        &self,
        event: EventId,
        reservations: &[Reservation],
    ) -> Result<Vec<Result<Decision, RedisError>>, Error> {
        let _permit = self.permits.take(event).await?;
        Ok(self.redis.reserve(event, reservations).await?)
    }

    /// Answers known buyers: looks up their orders in the ledger, and calls the script again for those that are not
    /// there. It decides if Redis has the same units of the buyer as before the look-up; otherwise the same request may
    /// have been committed at another replica, and the order is looked up again.
    async fn answer_known(&self, mut known: Vec<Pending<'_>>) -> Vec<Answered> {
        let mut ready = Vec::with_capacity(known.len());
        for look_up in 1..=MAX_LOOK_UPS {
            if known.is_empty() {
                break;
            }
            let orders = self.known_orders(known.iter().map(Pending::order_id).collect()).await;
            self.decide_known(&mut known, &orders, look_up == MAX_LOOK_UPS).await;
            let (again, decided): (Vec<_>, Vec<_>) =
                known.into_iter().partition(|pending| pending.decided.is_of_known_buyer());
            ready.extend(decided);
            known = again;
        }
        ready.extend(known);
        self.answer_ready(ready).await
    }

    /// Decides what it can of the orders that were looked up. The last time the script decides whatever has changed:
    /// the buyer may have many other orders under way. A refusal does not count then, and a grant for an order that is
    /// committed by now is dropped once the ledger finds that.
    async fn decide_known(&self, known: &mut [Pending<'_>], orders: &Result<KnownOrders, Error>, is_last: bool) {
        let mut new = Vec::new();
        for pending in known {
            if pending.recall(orders) {
                new.push(pending);
            }
        }
        let again: Vec<EventReservation> = new.iter().map(|pending| pending.as_absent(is_last)).collect();
        for (pending, decided) in new.into_iter().zip(self.decide(&again).await) {
            if !(is_last && decided.is_refused()) {
                pending.decided = decided;
            }
        }
    }

    /// Answers for events that Redis does not have: they are being staged or were lost, and are queued for comparison,
    /// or they are over, or were never staged.
    async fn answer_absent(&self, absent: Vec<Pending<'_>>) -> Vec<Answered> {
        let absences = self.absent.explain(absent.iter().map(|pending| pending.wanted.event_id).collect()).await;
        let absence = |pending: &Pending<'_>| absences.get(&pending.wanted.event_id).copied();
        let (over, others): (Vec<_>, Vec<_>) =
            absent.into_iter().partition(|pending| absence(pending) == Some(Absence::Over));
        let mut answers = self.answer_over(over).await;
        answers.extend(others.into_iter().map(|pending| match absence(&pending) {
            Some(_) => pending.refuse(RefusalReason::EventNotFound),
            None => {
                self.reconcile.request_recheck(pending.wanted.event_id);
                pending.refuse(RefusalReason::NotReady)
            }
        }));
        answers
    }

    /// Answers for events that are over and forgotten: a repeat of an order in the ledger still gets its answer.
    async fn answer_over(&self, over: Vec<Pending<'_>>) -> Vec<Answered> {
        if over.is_empty() {
            return Vec::new();
        }
        let known = self.known_orders(over.iter().map(Pending::order_id).collect()).await;
        let (mut answers, mut ready) = (Vec::new(), Vec::new());
        for mut pending in over {
            if pending.recall(&known) {
                answers.push(pending.refuse(RefusalReason::EventClosed));
            } else {
                ready.push(pending);
            }
        }
        answers.extend(self.answer_ready(ready).await);
        answers
    }

    async fn answer_ready(&self, ready: Vec<Pending<'_>>) -> Vec<Answered> {
        let answers = ready.into_iter().map(|pending| async move {
            let Pending { index, wanted, decided } = pending;
            (index, self.answer(wanted, decided).await)
        });
        join_all(answers).await
    }

    /// Looks these orders up in the ledger.
    async fn known_orders(&self, orders: Vec<OrderId>) -> Result<KnownOrders, Error> {
        let read = self
            .db
            .run("find_repeats", |mut conn| async move { store::ledger::each_of_orders(&mut conn, &orders).await });
        Ok(KnownOrders::of(read.await?))
    }

    async fn answer(&self, wanted: &EventReservation, decided: Decided) -> Result<Reserved, Error> {
        let grant = match decided {
            Decided::ByScript(Decision::Held(hold)) => granted(wanted, &hold),
            Decided::InLedger => repeated(wanted),
            Decided::ByScript(Decision::Refused(refusal)) => return Ok(Reserved::Refused(refused(&refusal))),
            // The buyer's units have changed at each look-up, and are perhaps why the order was refused.
            Decided::ByScript(Decision::KnownBuyer(_)) => {
                return Ok(Reserved::Refused(Refusal::of_order(RefusalReason::NotReady)));
            }
            Decided::Failed(error) => return Err(error),
        };
        let Committed { outcome, request_time, labels } = self.commit.commit(grant).await?;
        Ok(match outcome {
            ReservationOutcome::Reserved(units) => Reserved::Units { units, labels, request_time },
            ReservationOutcome::Refused(refusal) => Reserved::Refused(refusal),
        })
    }
}

/// A reservation of a call that is not answered yet.
struct Pending<'w> {
    /// Its index in the call.
    index: usize,
    wanted: &'w EventReservation,
    decided: Decided,
}

impl Pending<'_> {
    fn order_id(&self) -> OrderId {
        self.wanted.reservation.order_id
    }

    /// Decides by what the ledger has of the order. Changes nothing and returns true if that is nothing.
    fn recall(&mut self, known: &Result<KnownOrders, Error>) -> bool {
        let is_known = match known {
            Ok(known) => known.has(self.order_id()),
            Err(error) => Err(error.clone()),
        };
        self.decided = match is_known {
            Ok(false) => return true,
            Ok(true) => Decided::InLedger,
            Err(error) => Decided::Failed(error),
        };
        false
    }

    /// Returns the reservation for another call of the script, once the ledger was found not to have the order.
    /// `is_last` has it decide whatever has changed since.
    fn as_absent(&self, is_last: bool) -> EventReservation {
        let mut again = self.wanted.clone();
        again.reservation.ledger = match &self.decided {
            Decided::ByScript(Decision::KnownBuyer(reading)) if !is_last => InLedger::AbsentAfter(reading.clone()),
            _ => InLedger::Absent,
        };
        again
    }

    fn refuse(self, reason: RefusalReason) -> Answered {
        (self.index, Ok(Reserved::Refused(Refusal::of_order(reason))))
    }
}

/// The orders that are in the ledger and were written, or may still be; an error for one that cannot be read.
struct KnownOrders(HashMap<OrderId, Result<(), DbError>>);

impl KnownOrders {
    fn of(rows: Vec<(OrderId, StoredEntry)>) -> Self {
        let mut orders = HashMap::with_capacity(rows.len());
        for (order_id, entry) in rows {
            match entry {
                Ok(entry) if entry.is_void() => {}
                Ok(_) => {
                    orders.entry(order_id).or_insert(Ok(()));
                }
                Err(error) => {
                    orders.insert(order_id, Err(error));
                }
            }
        }
        Self(orders)
    }

    /// Returns whether it has the order. Fails if a row of the order cannot be read.
    fn has(&self, order_id: OrderId) -> Result<bool, Error> {
        match self.0.get(&order_id) {
            None => Ok(false),
            Some(Ok(())) => Ok(true),
            Some(Err(error)) => Err(error.clone().into()),
        }
    }
}

/// The answer to the reservation with this index in the call.
type Answered = (usize, Result<Reserved, Error>);

/// The state of a reservation before the ledger commits it.
#[derive(Debug, Clone)]
enum Decided {
    ByScript(Decision),
    /// The order is in the ledger.
    InLedger,
    /// The script or the database failed.
    Failed(Error),
}

impl Decided {
    fn of(decision: Result<Decision, RedisError>) -> Self {
        decision.map_or_else(|error| Self::Failed(error.into()), Self::ByScript)
    }

    /// Returns whether the order has to be looked up in the ledger before the script decides.
    fn is_of_known_buyer(&self) -> bool {
        matches!(self, Self::ByScript(Decision::KnownBuyer(_)))
    }

    fn is_refused(&self) -> bool {
        matches!(self, Self::ByScript(Decision::Refused(_)))
    }

    /// Returns whether Redis does not have the event at all, and not only one of its items.
    fn is_event_absent(&self) -> bool {
        let Self::ByScript(Decision::Refused(refusal)) = self else { return false };
        refusal.cause == Cause::NotReady && refusal.item_id.is_none()
    }
}

/// Returns the first error if no reservation could be decided.
fn common_failure(answers: &[Result<Reserved, Error>]) -> Option<Error> {
    answers.iter().map(|answer| answer.as_ref().err()).collect::<Option<Vec<_>>>()?.first().copied().cloned()
}

fn warn_of_failures(answers: &[Result<Reserved, Error>]) {
    let failures = answers.iter().filter_map(|answer| answer.as_ref().err());
    let count = failures.clone().count();
    if let Some(error) = failures.into_iter().next() {
        tracing::warn!(reservation.count = count, error.cause = %error, "some reservations could not be decided");
    }
}

fn granted(wanted: &EventReservation, hold: &Hold) -> Grant {
    let gifts: HashMap<ItemId, i32> = hold.lines.iter().map(|line| (line.item_id, line.gift_units)).collect();
    let gift_units = |item_id| gifts.get(&item_id).copied().unwrap_or(0);
    Grant { arrival: hold.arrival, granted_at: hold.granted_at, is_repeat: false, ..grant(wanted, gift_units) }
}

/// Returns the grant of a repeat. It takes nothing: the ledger answers with its own arrival and gifts.
fn repeated(wanted: &EventReservation) -> Grant {
    grant(wanted, |_| 0)
}

fn grant(wanted: &EventReservation, gifts: impl Fn(ItemId) -> i32) -> Grant {
    let EventReservation { event_id, reservation } = wanted;
    let line = |line: &WantedLine| OrderedLine {
        item_id: line.item_id,
        units: line.units.get(),
        gift_units: gifts(line.item_id),
    };
    Grant {
        order_id: reservation.order_id,
        user_id: reservation.user_id,
        event_id: *event_id,
        fingerprint: reservation.fingerprint,
        arrival: 0,
        granted_at: Timestamp::from_micros(0),
        lines: reservation.lines.iter().map(line).collect(),
        is_repeat: true,
    }
}

fn refused(refusal: &stampede_lua::stock::Refusal) -> Refusal {
    let reason = match refusal.cause {
        Cause::NotReady => RefusalReason::NotReady,
        Cause::RequestIdReused => RefusalReason::RequestIdReused,
        Cause::EventNotOpen => RefusalReason::EventNotOpen,
        Cause::EventClosed => RefusalReason::EventClosed,
        Cause::ItemNotFound => RefusalReason::ItemNotFound,
        Cause::CurrencyMismatch => RefusalReason::CurrencyMismatch,
        Cause::LimitReached => RefusalReason::LimitReached,
        Cause::SoldOut => RefusalReason::SoldOut,
    };
    Refusal { reason, item_id: refusal.item_id, allowed_units: refusal.allowed_units }
}
