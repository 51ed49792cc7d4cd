//! The seeded mode: some of the requests with a good card meet with faults of real providers. The seed and the
//! idempotency key alone decide which request meets with which fault, so the same seed gives the same faults in
//! whatever order requests come.

use crate::{
    card::{Card, RefundEnd},
    config::Config,
    failure::Failure,
};
use sha2::{Digest, Sha256};
use std::{
    collections::HashSet,
    str::FromStr,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::sleep;

/// Longest time by which notices overtake each other.
const REORDERED_WITHIN_MS: u64 = 500;

/// A fault of a request or a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// Answered later than others.
    Delay,
    /// Declined, for one of several reasons.
    Decline,
    /// The first request is lost without a trace, and never answered in time.
    TimeoutBefore,
    /// Done, but answered too late.
    TimeoutAfter,
    /// The first request is answered 500, and not done.
    Fail,
    /// Answered `pending`, and captured later.
    Pending,
    /// A refund is answered `pending`, and done later.
    PendingRefund,
    /// A refund is answered `pending`, and fails later.
    FailedRefund,
    DuplicateNotice,
    /// The notice comes long afterwards.
    LateNotice,
    /// The notice comes after some that are younger.
    ReorderNotice,
}

impl Fault {
    const NAMES: [(&str, Fault); 11] = [
        ("delay", Fault::Delay),
        ("decline", Fault::Decline),
        ("timeout-before", Fault::TimeoutBefore),
        ("timeout-after", Fault::TimeoutAfter),
        ("fail", Fault::Fail),
        ("pending", Fault::Pending),
        ("pending-refund", Fault::PendingRefund),
        ("failed-refund", Fault::FailedRefund),
        ("duplicate-notice", Fault::DuplicateNotice),
        ("late-notice", Fault::LateNotice),
        ("reorder-notice", Fault::ReorderNotice),
    ];
}

/// The rate of a fault: `timeout-after=2` is two in a hundred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultRate {
    fault: Fault,
    percent: u8,
}

impl FromStr for FaultRate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, percent) = text.split_once('=').ok_or("must be NAME=PERCENT")?;
        let known = Fault::NAMES.iter().find(|(known, _)| *known == name);
        let Some((_, fault)) = known else {
            let names: Vec<&str> = Fault::NAMES.iter().map(|(name, _)| *name).collect();
            return Err(format!("{name:?} is none of {}", names.join(", ")));
        };
        match percent.parse() {
            Ok(percent) if percent <= 100 => Ok(Self { fault: *fault, percent }),
            _ => Err(format!("{percent:?} is not a whole number from 0 to 100")),
        }
    }
}

/// The faults of requests and notices.
pub(crate) struct Fates {
    seed: u64,
    rates: Vec<FaultRate>,
    delay_ms: u64,
    slow: Duration,
    late: Duration,
    /// Faults that only the first request under a key meets with, and that have happened.
    met: Mutex<HashSet<(Fault, String)>>,
}

impl Fates {
    /// Returns the fates of this configuration, whatever its mode.
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            seed: config.seed,
            rates: config.faults.clone(),
            delay_ms: config.delay_ms,
            slow: config.slow(),
            late: config.late(),
            met: Mutex::default(),
        }
    }

    /// Delays a request, and fails the first one under its key, if that is its fate.
    pub(crate) async fn meet(&self, key: &str) -> Result<(), Failure> {
        if self.is(Fault::Delay, key) {
            sleep(Duration::from_millis(self.draw("delay_ms", key) % self.delay_ms.max(1))).await;
        }
        if self.is(Fault::Fail, key) && self.is_first(Fault::Fail, key) { Err(Failure::Broken) } else { Ok(()) }
    }

    /// Loses the first request of a refund, if that is its fate: answered too late, and not done.
    pub(crate) async fn lose_refund(&self, key: &str) -> Result<(), Failure> {
        if self.is(Fault::TimeoutBefore, key) && self.is_first(Fault::TimeoutBefore, key) {
            sleep(self.slow).await;
            return Err(Failure::Lost);
        }
        Ok(())
    }

    /// Waits before a refund that was done is answered, if that is its fate.
    pub(crate) async fn answer_refund(&self, key: &str) {
        if self.is(Fault::TimeoutAfter, key) {
            sleep(self.slow).await;
        }
    }

    /// Returns the card by which a charge ends: for a good one the fate decides, for every other its token.
    pub(crate) fn card(&self, card: Card, key: &str) -> Card {
        if card != Card::Ok {
            return card;
        }
        let declined = [Card::Declined, Card::InsufficientFunds, Card::Expired];
        let reason = usize::try_from(self.draw("reason", key) % 3).unwrap_or(0);
        let fates = [
            (Fault::Decline, declined[reason]),
            (Fault::TimeoutBefore, Card::TimeoutLost),
            (Fault::TimeoutAfter, Card::TimeoutCaptured),
            (Fault::Pending, Card::Late),
        ];
        fates.into_iter().find(|(fault, _)| self.is(*fault, key)).map_or(Card::Ok, |(_, card)| card)
    }

    /// Returns the end of a refund: the one that the card of its charge asks for, or else that of its fate.
    pub(crate) fn refund_end(&self, asked: RefundEnd, key: &str) -> RefundEnd {
        if asked != RefundEnd::AtOnce {
            return asked;
        }
        let fates = [(Fault::FailedRefund, RefundEnd::Failed), (Fault::PendingRefund, RefundEnd::Late)];
        fates.into_iter().find(|(fault, _)| self.is(*fault, key)).map_or(RefundEnd::AtOnce, |(_, end)| end)
    }

    /// Returns how long after its time each copy of a notice is sent.
    pub(crate) fn notices(&self, key: &str) -> Vec<Duration> {
        let mut wait = Duration::ZERO;
        if self.is(Fault::LateNotice, key) {
            wait = self.late;
        } else if self.is(Fault::ReorderNotice, key) {
            wait = Duration::from_millis(self.draw("notice_ms", key) % REORDERED_WITHIN_MS);
        }
        if self.is(Fault::DuplicateNotice, key) { vec![Duration::ZERO, wait] } else { vec![wait] }
    }

    fn is(&self, fault: Fault, key: &str) -> bool {
        let rate = self.rates.iter().rev().find(|rate| rate.fault == fault);
        rate.is_some_and(|rate| self.draw(&format!("{fault:?}"), key) % 100 < u64::from(rate.percent))
    }

    fn is_first(&self, fault: Fault, key: &str) -> bool {
        self.met.lock().unwrap_or_else(PoisonError::into_inner).insert((fault, key.to_owned()))
    }

    /// Returns a number that is the same for the same seed, name and key.
    fn draw(&self, name: &str, key: &str) -> u64 {
        let digest = Sha256::digest(format!("{}/{name}/{key}", self.seed));
        digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn fates(flags: &[&str]) -> Fates {
        Fates::of(&Config::try_parse_from(["sandbox"].iter().chain(flags)).unwrap())
    }

    fn cards(fates: &Fates) -> Vec<Card> {
        (0..1_000).map(|number| fates.card(Card::Ok, &format!("pay_{number}:1"))).collect()
    }

    #[test]
    fn a_seed_gives_the_same_fates_each_time_and_another_others() {
        let flags = ["--faults", "decline=10,timeout-before=10,timeout-after=10,pending=10", "--seed"];
        let of = |seed| cards(&fates(&[&flags[..], &[seed]].concat()));
        assert_eq!(of("7"), of("7"));
        assert_ne!(of("7"), of("8"));
        for card in [Card::Declined, Card::InsufficientFunds, Card::Expired, Card::TimeoutLost, Card::Late] {
            assert!(of("7").contains(&card), "{card:?}");
        }
        let good = of("7").into_iter().filter(|card| *card == Card::Ok).count();
        assert!((550..=750).contains(&good), "{good} of 1000, where 656 are expected");
    }

    #[test]
    fn only_a_good_card_is_left_to_fate_and_a_rate_of_zero_is_never() {
        let all = fates(&["--faults", "decline=100"]);
        assert_ne!(all.card(Card::Ok, "k"), Card::Ok);
        assert_eq!(all.card(Card::TimeoutLost, "k"), Card::TimeoutLost);
        assert!(cards(&fates(&["--faults", "decline=0"])).iter().all(|card| *card == Card::Ok));
    }

    #[test]
    fn a_refund_is_late_or_fails_by_its_fate_unless_the_card_of_its_charge_decides() {
        let ends = |flags: &[&str]| -> Vec<RefundEnd> {
            let fates = fates(flags);
            (0..1_000).map(|number| fates.refund_end(RefundEnd::AtOnce, &format!("pay_{number}:1:refund"))).collect()
        };
        let some = ends(&["--faults", "pending-refund=10,failed-refund=10"]);
        for (end, expected) in
            [(RefundEnd::AtOnce, 760..=860), (RefundEnd::Late, 50..=130), (RefundEnd::Failed, 60..=140)]
        {
            let found = some.iter().filter(|found| **found == end).count();
            assert!(expected.contains(&found), "{found} of 1000 are {end:?}, where {expected:?} are expected");
        }
        assert!(ends(&["--faults", "pending=100"]).iter().all(|end| *end == RefundEnd::AtOnce));
        let late = fates(&["--faults", "pending-refund=100"]);
        assert_eq!(late.refund_end(RefundEnd::Failed, "k"), RefundEnd::Failed);
    }

    #[tokio::test]
    async fn a_repeat_of_what_failed_succeeds() {
        let fates = fates(&["--faults", "fail=100"]);
        assert_eq!(fates.meet("k").await, Err(Failure::Broken));
        assert_eq!(fates.meet("k").await, Ok(()));
    }

    #[test]
    fn notices_come_twice_late_or_out_of_order() {
        let late = fates(&["--faults", "late-notice=100,duplicate-notice=100", "--late-ms", "70"]);
        assert_eq!(late.notices("k"), [Duration::ZERO, Duration::from_millis(70)]);
        let reordered = fates(&["--faults", "reorder-notice=100"]);
        let waits: HashSet<Duration> = (0..20).flat_map(|number| reordered.notices(&number.to_string())).collect();
        assert!(waits.len() > 10, "{waits:?}");
    }

    #[test]
    fn a_rate_is_a_known_name_and_a_percentage() {
        for bad in ["", "delay", "delay=", "delay=101", "delay=-1", "magic=1"] {
            assert!(bad.parse::<FaultRate>().is_err(), "{bad}");
        }
    }
}
