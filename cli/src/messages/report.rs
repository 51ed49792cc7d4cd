//! The changes or the result of a decision, for people and as JSON.

use super::{
    decide::{Decided, Record, Verdict, name_of},
    id::LetterId,
    letter::{Summary, letters_table},
    outlook::Outlook,
    plan::{Key, Plan},
    text::printable,
    wait::Outcome,
};
use serde::Serialize;
use std::fmt::Write;

/// Longest error that people are shown.
const ERROR: usize = 500;

/// A decision, key by key.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Nothing was changed.
    pub dry_run: bool,
    /// The new state of the letters: REPLAY or DISCARDED.
    pub decision: &'static str,
    /// The author and the reason; none if nothing was changed.
    pub record: Option<Record>,
    pub keys: Vec<KeyReport>,
    /// There are more keys or letters than these.
    pub has_more: bool,
}

#[derive(Debug, Serialize)]
pub struct KeyReport {
    #[serde(flatten)]
    pub key: Key,
    /// The letters that nobody had decided on, in their order.
    pub letters: Vec<Summary>,
    /// The consequences, if they are discarded.
    pub outlook: Option<Outlook>,
    /// Those that were decided on; fewer than `letters` if somebody else was faster.
    pub decided: Option<Vec<LetterId>>,
    pub outcome: Option<Outcome>,
}

impl Report {
    /// Returns the changes of a plan. There is an outlook for each key, or none at all.
    pub fn of(plan: Plan, outlooks: Vec<Outlook>, verdict: Verdict) -> Self {
        let mut outlooks = outlooks.into_iter();
        let keys = plan.chains.into_iter().map(|chain| KeyReport {
            key: chain.key,
            letters: chain.letters,
            outlook: outlooks.next(),
            decided: None,
            outcome: None,
        });
        let decision = match verdict {
            Verdict::Replay => "REPLAY",
            Verdict::Discard => "DISCARDED",
        };
        Self { dry_run: true, decision, record: None, keys: keys.collect(), has_more: plan.has_more }
    }

    /// Notes the result of each key, in their order.
    pub fn done(&mut self, record: Record, decided: Vec<Decided>, outcomes: Vec<Outcome>) {
        (self.dry_run, self.record) = (false, Some(record));
        for (key, (decided, outcome)) in self.keys.iter_mut().zip(decided.into_iter().zip(outcomes)) {
            (key.decided, key.outcome) = (Some(decided.letters), Some(outcome));
        }
    }

    /// Returns whether something was decided on each key and, if that was waited for, was carried out.
    pub fn is_good(&self, waited: bool) -> bool {
        let is_good = |key: &KeyReport| {
            let outcome = key.outcome.as_ref();
            key.decided.as_ref().is_some_and(|decided| !decided.is_empty())
                && (!waited || outcome.is_some_and(Outcome::is_good))
        };
        !self.keys.is_empty() && self.keys.iter().all(is_good)
    }

    pub fn plan_text(&self) -> String {
        if self.keys.is_empty() {
            return "nothing of it waits for a decision: `stampede messages list --state all` has what was decided"
                .to_owned();
        }
        let mut text = String::new();
        for KeyReport { key, letters, outlook, .. } in &self.keys {
            let (count, name) = (letters.len(), printable(name_of(&key.key), 64));
            let what = match self.decision {
                "REPLAY" => "to be replayed in this order, with whatever of the key arrives until then",
                _ => "to be skipped for good",
            };
            write(&mut text, &format!("{name} of {} in {}, {count} letters {what}:", key.topic, key.consumer));
            write(&mut text, &letters_table(letters).to_string());
            if let Some(outlook) = outlook {
                write(&mut text, &outlook.to_string());
            }
            text.push('\n');
        }
        if self.has_more {
            write(&mut text, "there is more than this: go on with it afterwards, or raise --limit");
        }
        text.truncate(text.trim_end().len());
        text
    }

    /// Returns the next step of the operator.
    pub fn hint(&self) -> String {
        format!("nothing was changed: add --yes --why TEXT to do it for {} keys", self.keys.len())
    }

    pub fn outcome_text(&self, waited: bool) -> String {
        let mut text = String::new();
        for key in &self.keys {
            write(&mut text, &key.outcome_text(waited));
        }
        text.truncate(text.trim_end().len());
        text
    }
}

impl KeyReport {
    fn outcome_text(&self, waited: bool) -> String {
        let name = printable(name_of(&self.key.key), 64);
        let (Some(decided), Some(outcome)) = (&self.decided, &self.outcome) else {
            return format!("{name}: nothing was decided");
        };
        if decided.is_empty() {
            return format!("{name}: somebody else has decided on it meanwhile, nothing was changed");
        }
        let Outcome { replayed, discarded, pending, waiting, failed, parked, open } = outcome;
        let mut text = format!("{name}: {} letters decided on", decided.len());
        for (count, what) in [
            (replayed, "replayed"),
            (discarded, "discarded"),
            (pending, "not come to yet"),
            (waiting, "waiting for another decision"),
        ] {
            if *count > 0 {
                text.push_str(&format!(", {count} {what}"));
            }
        }
        for failed in failed {
            text.push_str(&format!("\n  {} failed: {}", failed.id, printable(&failed.error, ERROR)));
        }
        if waited && *pending > 0 {
            text.push_str(&format!("\n  is {} running? it goes on once it is", self.key.consumer));
        }
        match (*parked, *open) {
            (false, _) => text.push_str(", the key goes on"),
            (true, 0) => text.push_str(&format!(", {} has not let the key go yet", self.key.consumer)),
            (true, open) => text.push_str(&format!(", the key stays parked behind {open} letters")),
        }
        text
    }
}

fn write(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a string takes all");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{letter::tests::letter, plan::Chain, wait::Failed};

    fn report(verdict: Verdict) -> Report {
        let letters = vec![letter(7, "PaymentRequested", "ord_1"), letter(9, "OrderExpired", "ord_1")];
        let chain = Chain { key: Key::of(&letters[0]), letters };
        Report::of(Plan { chains: vec![chain], has_more: false }, Vec::new(), verdict)
    }

    fn done(decided: &[i64], outcome: Outcome) -> Report {
        let mut report = report(Verdict::Replay);
        let key = report.keys[0].key.clone();
        let letters = decided.iter().map(|row| LetterId { consumer: key.consumer, row: *row }).collect();
        let record = Record { by: "ann".to_owned(), why: "mended".to_owned() };
        report.done(record, vec![Decided { key, letters }], vec![outcome]);
        report
    }

    #[test]
    fn a_plan_says_what_it_would_do_and_how_to_do_it() {
        let plan = report(Verdict::Replay);
        let text = plan.plan_text();
        assert!(text.starts_with("ord_1 of stampede.order in payment, 2 letters to be replayed"), "{text}");
        assert!(text.contains("payment-7") && text.contains("payment-9"), "{text}");
        assert!(plan.dry_run && plan.hint().contains("--yes --why"), "{}", plan.hint());
        assert!(report(Verdict::Discard).plan_text().contains("skipped for good"));
        let nothing = Report::of(Plan::default(), Vec::new(), Verdict::Replay);
        assert!(nothing.plan_text().contains("nothing of it waits") && !nothing.is_good(true));
    }

    #[test]
    fn the_slower_of_two_operators_learns_of_it() {
        let slower = done(&[], Outcome::default());
        assert!(!slower.is_good(true) && !slower.is_good(false));
        assert!(slower.outcome_text(true).contains("somebody else"), "{}", slower.outcome_text(true));
    }

    #[test]
    fn what_is_not_over_is_good_only_if_it_was_not_waited_for() {
        let pending = done(&[7, 9], Outcome { replayed: 1, pending: 1, parked: true, open: 1, ..Outcome::default() });
        assert!(pending.is_good(false) && !pending.is_good(true));
        let text = pending.outcome_text(true);
        assert!(text.contains("1 replayed, 1 not come to yet") && text.contains("is payment running?"), "{text}");
        let over = done(&[7, 9], Outcome { replayed: 2, ..Outcome::default() });
        assert!(over.is_good(true) && over.outcome_text(true).ends_with("2 replayed, the key goes on"));
    }

    #[test]
    fn a_replay_that_failed_says_why() {
        let failed = Failed { id: "payment-7".parse().unwrap(), error: "no\nsuch item".to_owned() };
        let outcome = Outcome { waiting: 2, failed: vec![failed], parked: true, open: 2, ..Outcome::default() };
        let report = done(&[7, 9], outcome);
        let text = report.outcome_text(true);
        assert!(text.contains("payment-7 failed: no such item") && text.contains("behind 2 letters"), "{text}");
        let json = serde_json::to_value(report).unwrap();
        assert_eq!((&json["record"]["by"], &json["keys"][0]["decided"][1]), (&"ann".into(), &"payment-9".into()));
        assert_eq!(json["keys"][0]["outcome"]["failed"][0]["id"], "payment-7");
    }
}
