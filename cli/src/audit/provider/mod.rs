//! Compares the provider's records with the attempts to pay, by the idempotency key `<payment>:<attempt>` that each
//! charge has: every charge is of one of our attempts, and its captured and refunded amounts are those of our records.
//!
//! The records are kept in memory, a few words each; the payments are read in pages by their key.

mod attempts;
mod records;

use super::{named::Named, sources::Sources, verdict::Audit};
use anyhow::Context;
use attempts::{Attempt, NotedRefund, Pages};
use records::{Charge, Charges, Key, Status};

/// The breaches, by rule.
#[derive(Default)]
struct Found {
    unknown_payment: Named,
    unknown_attempt: Named,
    surplus: Named,
    differing: Named,
    another_currency: Named,
    pending: Named,
    missing: Named,
}

/// Compares attempt by attempt. Notes that it was left out if no provider is given.
pub async fn compare(sources: &Sources, provider_url: Option<&str>, audit: &mut Audit) -> anyhow::Result<()> {
    let Some(url) = provider_url else {
        audit.leave_out("the payment provider's records: give --provider-url");
        return Ok(());
    };
    let mut charges =
        Charges::read(url).await.context("the payment provider's records cannot be read: check --provider-url")?;
    let recorded = i64::try_from(charges.captured())?;
    let mut found = Found { unknown_payment: charges.take_unreadable().into_iter().collect(), ..Found::default() };
    let (mut pages, mut known) = (Pages::of(sources), 0);
    loop {
        let page = pages.next().await?;
        if page.is_empty() {
            break;
        }
        for (payment, attempts) in page {
            for attempt in attempts {
                known += i64::from(attempt.captured_minor > 0);
                let key = Key { payment, attempt: attempt.number };
                found.compare(key, &attempt, &charges.take(key));
            }
            for (key, charge) in charges.take_all_of(payment).into_iter().filter(|(_, charge)| charge.is_money()) {
                found.unknown_attempt.push(format!("{key} ({charge})"));
            }
        }
    }
    let foreign = charges.rest().filter(|(_, charge)| charge.is_money());
    found.unknown_payment.extend(foreign.map(|(key, charge)| format!("{key} ({charge})")));
    audit.figure(3, "charges that we know of", known);
    audit.figure(3, "charges in the provider's records", recorded);
    found.report(audit);
    Ok(())
}

impl Found {
    /// Compares one attempt with the charges under its key. A payment of zero has no charge.
    fn compare(&mut self, key: Key, ours: &Attempt, theirs: &[Charge]) {
        let money: Vec<_> = theirs.iter().filter(|charge| charge.is_money()).collect();
        if money.len() > 1 {
            self.surplus.push(format!("{key} ({} charges under one key)", money.len()));
        }
        let Some(theirs) = money.first() else {
            if ours.captured_minor > 0 {
                self.missing.push(format!("{key} (captured {})", ours.captured_minor));
            }
            return;
        };
        if theirs.currency != ours.currency {
            self.another_currency.push(format!("{key} (we {}, the provider {})", ours.currency, theirs.currency));
        }
        if theirs.status == Status::Pending {
            if ours.captured_minor > 0 {
                self.missing.push(format!("{key} (captured {}, pending at the provider)", ours.captured_minor));
            } else if ours.has_ended {
                self.pending.push(format!("{key} ({theirs})"));
            }
            return;
        }
        if !ours.has_captured {
            // The provider may have captured a charge that an operator has declined: then it must be refunded as a
            // whole, unless an operator knows that the refund has failed since.
            let is_taken_back = ours.noted_refund == NotedRefund::TakenBack;
            let is_back = theirs.refunded_minor == theirs.amount_minor
                || (is_taken_back && (0..theirs.amount_minor).contains(&theirs.refunded_minor));
            if !ours.is_given_up || !is_back {
                self.surplus.push(format!("{key} ({theirs})"));
            }
        } else if theirs.amount_minor != ours.captured_minor || !is_refund_right(ours, theirs) {
            self.differing.push(format!(
                "{key} (we captured {} and refunded {}, the provider {} and {})",
                ours.captured_minor, ours.refunded_minor, theirs.amount_minor, theirs.refunded_minor
            ));
        }
    }

    fn report(self, audit: &mut Audit) {
        audit.breach(3, "the provider charged for a payment that we do not know", self.unknown_payment);
        audit.breach(3, "the provider charged for an attempt that we do not know", self.unknown_attempt);
        audit.breach(3, "the provider moved another sum than we did", self.differing);
        audit.breach(3, "the provider charged in another currency than we did", self.another_currency);
        audit.breach(3, "the provider charged more often than we know of", self.surplus);
        audit.breach(3, "the provider still charges for an attempt that has ended", self.pending);
        audit.breach(3, "the provider has no charge of a captured payment", self.missing);
    }
}

/// Returns whether as much was refunded as our records have, or more or less of which an operator knows. A refund that
/// they know of in part may not be of the whole, and none may be of more than was captured.
fn is_refund_right(ours: &Attempt, theirs: &Charge) -> bool {
    let more = ours.refunded_minor + 1;
    theirs.refunded_minor == ours.refunded_minor
        || match ours.noted_refund {
            NotedRefund::None => false,
            NotedRefund::Part => (more..theirs.amount_minor).contains(&theirs.refunded_minor),
            NotedRefund::Whole => (more..=theirs.amount_minor).contains(&theirs.refunded_minor),
            NotedRefund::TakenBack => (0..ours.refunded_minor).contains(&theirs.refunded_minor),
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use NotedRefund::{Part, TakenBack, Whole};
    use stampede_vocab::PaymentId;

    const KEY: Key = Key { payment: PaymentId::from_uuid(uuid::Uuid::from_u128(1)), attempt: 1 };

    fn ours(captured_minor: i64, refunded_minor: i64) -> Attempt {
        let (has_captured, currency) = (captured_minor > 0, "EUR".to_owned());
        Attempt {
            number: 1,
            has_ended: true,
            has_captured,
            is_given_up: false,
            noted_refund: NotedRefund::None,
            captured_minor,
            refunded_minor,
            currency,
        }
    }

    /// Returns an attempt that an operator has declined.
    fn given_up() -> Attempt {
        Attempt { is_given_up: true, ..ours(0, 0) }
    }

    /// Returns an attempt of whose refund an operator knows this.
    fn noted(noted_refund: NotedRefund, captured_minor: i64, refunded_minor: i64) -> Attempt {
        Attempt { noted_refund, ..ours(captured_minor, refunded_minor) }
    }

    fn theirs(status: Status, amount_minor: i64, refunded_minor: i64) -> Charge {
        Charge { status, amount_minor, refunded_minor, currency: "EUR".to_owned() }
    }

    /// Returns how often each rule is broken, in the order of the fields.
    fn broken(ours: &Attempt, theirs: &[Charge]) -> [usize; 5] {
        let mut found = Found::default();
        found.compare(KEY, ours, theirs);
        [found.surplus, found.differing, found.another_currency, found.pending, found.missing]
            .map(|named| named.count())
    }

    #[test]
    fn what_both_say_is_right() {
        for (ours, theirs) in [
            (ours(500, 0), vec![theirs(Status::Captured, 500, 0)]),
            (ours(500, 500), vec![theirs(Status::Captured, 500, 500)]),
            (ours(0, 0), vec![theirs(Status::Declined, 500, 0)]),
            (Attempt { has_ended: false, ..ours(0, 0) }, vec![theirs(Status::Pending, 500, 0)]),
            (ours(0, 0), vec![]),
            (given_up(), vec![theirs(Status::Captured, 500, 500)]),
            (noted(Part, 500, 0), vec![theirs(Status::Captured, 500, 100)]),
            (noted(Whole, 500, 0), vec![theirs(Status::Captured, 500, 500)]),
            (noted(Whole, 500, 500), vec![theirs(Status::Captured, 500, 500)]),
            (noted(TakenBack, 500, 500), vec![theirs(Status::Captured, 500, 0)]),
            (noted(TakenBack, 500, 500), vec![theirs(Status::Captured, 500, 500)]),
            (Attempt { noted_refund: TakenBack, ..given_up() }, vec![theirs(Status::Captured, 500, 0)]),
        ] {
            assert_eq!(broken(&ours, &theirs), [0; 5], "{ours:?} {theirs:?}");
        }
    }

    #[test]
    fn each_difference_breaks_its_rule() {
        let dollars = Charge { currency: "USD".to_owned(), ..theirs(Status::Captured, 500, 0) };
        for (ours, theirs, expected) in [
            (ours(0, 0), vec![theirs(Status::Captured, 500, 500)], [1, 0, 0, 0, 0]),
            (given_up(), vec![theirs(Status::Captured, 500, 0)], [1, 0, 0, 0, 0]),
            (given_up(), vec![theirs(Status::Captured, 500, 499)], [1, 0, 0, 0, 0]),
            (given_up(), vec![theirs(Status::Captured, 500, 500); 2], [1, 0, 0, 0, 0]),
            (noted(Part, 500, 0), vec![theirs(Status::Captured, 501, 100)], [0, 1, 0, 0, 0]),
            (noted(Part, 500, 0), vec![theirs(Status::Captured, 500, 500)], [0, 1, 0, 0, 0]),
            (noted(Whole, 500, 0), vec![theirs(Status::Captured, 500, 501)], [0, 1, 0, 0, 0]),
            (noted(Whole, 500, 500), vec![theirs(Status::Captured, 500, 100)], [0, 1, 0, 0, 0]),
            (noted(TakenBack, 500, 500), vec![theirs(Status::Captured, 500, 501)], [0, 1, 0, 0, 0]),
            (noted(TakenBack, 500, 500), vec![theirs(Status::Captured, 499, 0)], [0, 1, 0, 0, 0]),
            (noted(TakenBack, 0, 0), vec![theirs(Status::Captured, 500, 0)], [1, 0, 0, 0, 0]),
            (
                Attempt { noted_refund: TakenBack, ..given_up() },
                vec![theirs(Status::Captured, 500, 501)],
                [1, 0, 0, 0, 0],
            ),
            (ours(500, 0), vec![theirs(Status::Captured, 500, 500)], [0, 1, 0, 0, 0]),
            (ours(500, 0), vec![theirs(Status::Captured, 500, 0); 2], [1, 0, 0, 0, 0]),
            (ours(500, 0), vec![theirs(Status::Captured, 501, 0)], [0, 1, 0, 0, 0]),
            (ours(500, 500), vec![theirs(Status::Captured, 500, 0)], [0, 1, 0, 0, 0]),
            (ours(500, 0), vec![dollars], [0, 0, 1, 0, 0]),
            (ours(0, 0), vec![theirs(Status::Pending, 500, 0)], [0, 0, 0, 1, 0]),
            (ours(500, 0), vec![theirs(Status::Declined, 500, 0)], [0, 0, 0, 0, 1]),
            (ours(500, 0), vec![theirs(Status::Pending, 500, 0)], [0, 0, 0, 0, 1]),
            (ours(500, 0), vec![], [0, 0, 0, 0, 1]),
        ] {
            assert_eq!(broken(&ours, &theirs), expected, "{ours:?} {theirs:?}");
        }
    }
}
