//! The ledger's decisions on orders, without a database.

use super::*;
use crate::domain::{COMMIT_GRACE, ShelfItem, Window};
use stampede_vocab::Money;
use std::time::Duration;
use uuid::Uuid;

const NOW: Timestamp = Timestamp::from_micros(1_000);
const LATER: Timestamp = Timestamp::from_micros(2_000);

/// Item `n` with so many units, two a buyer, and one gift.
pub(in crate::domain) fn item(n: u128, total_units: i32) -> Item {
    Item {
        event_id: EventId::from_uuid(Uuid::nil()),
        event_version: 1,
        window: Window { open_time: NOW, close_time: LATER },
        shelf: ShelfItem {
            item_id: item_id(n),
            total_units,
            limit_per_buyer: 2,
            gift_total_units: 1,
            unit_price: Money::new(100, "EUR".parse().unwrap()),
        },
        committed: Committed::default(),
        arrivals_floor: None,
        last_grant: None,
        is_numbered: true,
    }
}

fn item_id(n: u128) -> ItemId {
    ItemId::from_uuid(Uuid::from_u128(n))
}

fn order_id(n: u128) -> OrderId {
    OrderId::from_uuid(Uuid::from_u128(n))
}

fn user_id(n: u128) -> UserId {
    UserId::from_uuid(Uuid::from_u128(n))
}

/// A time inside the window.
const OPEN: Timestamp = NOW;

/// What the script has granted to order `n` of buyer `n` for `(item, units, gifts)`.
fn grant(n: u128, lines: &[(u128, i32, i32)]) -> Grant {
    let line =
        |&(item, units, gift_units): &(u128, i32, i32)| OrderedLine { item_id: item_id(item), units, gift_units };
    Grant {
        order_id: order_id(n),
        user_id: user_id(n),
        event_id: EventId::from_uuid(Uuid::nil()),
        fingerprint: Fingerprint::new([1; Fingerprint::LEN]),
        arrival: i64::try_from(n).unwrap(),
        granted_at: OPEN,
        lines: lines.iter().map(line).collect(),
        is_repeat: false,
    }
}

/// Order `n` of buyer `n`, paid late, for `(item, units)`.
fn paid_late(n: u128, lines: &[(u128, i32)]) -> LedgerCommand {
    let line = |&(item, units): &(u128, i32)| OrderedLine { item_id: item_id(item), units, gift_units: 0 };
    LedgerCommand::CommitAgain(OrderedUnits {
        order_id: order_id(n),
        user_id: user_id(n),
        event_id: EventId::from_uuid(Uuid::nil()),
        lines: lines.iter().map(line).collect(),
    })
}

fn refused(reason: RefusalReason, item: u128, allowed_units: i32) -> ReservationOutcome {
    ReservationOutcome::Refused(Refusal { reason, item_id: Some(item_id(item)), allowed_units })
}

fn of_order(reason: RefusalReason) -> ReservationOutcome {
    ReservationOutcome::Refused(Refusal::of_order(reason))
}

fn rejected(reason: RejectReason, item: u128) -> Option<MessageBody> {
    Some(MessageBody::Rejected { reason, item_id: item_id(item) })
}

fn reserved(outcome: &ReservationOutcome) -> &ReservedUnits {
    match outcome {
        ReservationOutcome::Reserved(units) => units,
        ReservationOutcome::Refused(refusal) => panic!("refused: {refusal:?}"),
    }
}

fn ledger(items: Vec<Item>) -> LedgerBatch {
    LedgerBatch::new(items, Vec::new(), Buyers::new())
}

/// The ledger as it is read after `changes` were written to `items`.
fn reread(items: &[Item], changes: &Changes) -> LedgerBatch {
    let mut items = items.to_vec();
    let mut buyers = Buyers::new();
    for change in &changes.items {
        let item = items.iter_mut().find(|item| item.id() == change.item_id).unwrap();
        item.committed = change.after;
        buyers.extend(change.buyers.iter().map(|(user, units)| ((change.item_id, *user), *units)));
    }
    LedgerBatch::new(items, changes.entries.clone(), buyers)
}

#[test]
fn grants_are_committed_while_there_are_units_and_not_one_beyond() {
    let mut ledger = ledger(vec![item(1, 3)]);
    assert!(reserved(&ledger.reserve(&grant(1, &[(1, 2, 0)]), NOW)).is_new);
    assert_eq!(ledger.reserve(&grant(2, &[(1, 2, 0)]), NOW), refused(RefusalReason::SoldOut, 1, 1));
    assert!(reserved(&ledger.reserve(&grant(3, &[(1, 1, 0)]), NOW)).is_new);
    let changes = ledger.changes();
    assert_eq!(changes.items[0].after, Committed { units: 3, gift_units: 0, version: 1 });
    assert_eq!(changes.items[0].units, 3);
    assert_eq!(changes.items[0].buyers, [(user_id(1), 2), (user_id(3), 1)]);
    assert_eq!(changes.entries.len(), 2);
}

#[test]
fn an_order_is_all_or_nothing() {
    let mut ledger = ledger(vec![item(1, 5), item(2, 1)]);
    ledger.reserve(&grant(1, &[(2, 1, 0)]), NOW);
    let both = ledger.reserve(&grant(2, &[(1, 1, 0), (2, 1, 0)]), NOW);
    assert_eq!(both, refused(RefusalReason::SoldOut, 2, 0));
    let changes = ledger.changes();
    assert_eq!(changes.items.iter().map(|item| item.item_id).collect::<Vec<_>>(), [item_id(2)]);
}

#[test]
fn the_limit_counts_what_the_buyer_has_already() {
    let buyers = Buyers::from([((item_id(1), user_id(1)), 1)]);
    let mut ledger = LedgerBatch::new(vec![item(1, 5)], Vec::new(), buyers);
    let outcome = ledger.reserve(&grant(1, &[(1, 2, 0)]), NOW);
    assert_eq!(outcome, refused(RefusalReason::LimitReached, 1, 1));
    let changes = ledger.changes();
    assert_eq!((changes.items, changes.entries), (vec![], vec![]));
    // Redis has granted it, so what the buyer has is copied to it.
    assert_eq!(changes.corrections[0].buyers, [(user_id(1), 1)]);
}

#[test]
fn a_gift_that_is_gone_does_not_refuse_the_units() {
    let mut ledger = ledger(vec![item(1, 5)]);
    let gifts = [1, 2].map(|n| reserved(&ledger.reserve(&grant(n, &[(1, 1, 1)]), NOW)).lines[0].gift_units);
    assert_eq!(gifts, [1, 0]);
    assert_eq!(ledger.changes().items[0].gift_units, 1);
}

#[test]
fn what_an_earlier_copy_of_redis_grants_outside_of_the_window_is_refused() {
    let mut ledger = ledger(vec![item(1, 5)]);
    let at = |micros| Grant { granted_at: Timestamp::from_micros(micros), ..grant(1, &[(1, 1, 0)]) };
    assert_eq!(ledger.reserve(&at(NOW.micros() - 1), NOW), of_order(RefusalReason::EventNotOpen));
    assert_eq!(ledger.reserve(&at(LATER.micros()), NOW), of_order(RefusalReason::EventClosed));
}

#[test]
fn what_was_granted_inside_of_the_window_is_committed_until_its_grace_is_over() {
    let mut ledger = ledger(vec![item(1, 5)]);
    let last_moment = |n| Grant { granted_at: Timestamp::from_micros(LATER.micros() - 1), ..grant(n, &[(1, 1, 0)]) };
    let over = LATER.plus(COMMIT_GRACE);
    assert!(reserved(&ledger.reserve(&last_moment(1), over.minus(Duration::from_micros(1)))).is_new);
    assert_eq!(ledger.reserve(&last_moment(2), over), of_order(RefusalReason::EventClosed));
    assert!(!reserved(&ledger.reserve(&last_moment(1), over)).is_new, "a repeat is answered however late");
    let changes = ledger.changes();
    assert_eq!(changes.entries.len(), 1);
    // Redis drops the hold with a copy of what its buyer has.
    let corrected: Vec<_> = changes.corrections.iter().flat_map(|copy| copy.buyers.clone()).collect();
    assert_eq!(corrected, [(user_id(1), 1), (user_id(2), 0)]);
}

#[test]
fn a_place_of_arrival_that_another_order_has_is_refused_and_tells_of_an_earlier_copy() {
    let event_id = EventId::from_uuid(Uuid::nil());
    let at = |micros| Timestamp::from_micros(NOW.micros() + micros);
    let placed = |n, arrival, micros| Grant { arrival, granted_at: at(micros), ..grant(n, &[(1, 1, 0)]) };
    let last = LastGrant { arrival: 5, granted_at: at(5) };
    let mut ledger = ledger(vec![item(1, 5)]).with_last_grants(BTreeMap::from([(event_id, vec![last])]));
    assert!(reserved(&ledger.reserve(&placed(1, 4, 4), LATER)).is_new, "a commit that was overtaken");
    assert!(reserved(&ledger.reserve(&placed(2, 3, 5), LATER)).is_new, "the same of the same call");
    assert!(reserved(&ledger.reserve(&placed(3, 7, 7), LATER)).is_new);
    assert!(reserved(&ledger.reserve(&placed(4, 6, 6), LATER)).is_new, "in whatever order they are in the batch");
    for (n, arrival, micros) in [(5, 5, 6), (6, 2, 6), (7, 7, 8)] {
        assert_eq!(ledger.reserve(&placed(n, arrival, micros), LATER), of_order(RefusalReason::NotReady), "{arrival}");
    }
    let changes = ledger.changes();
    assert_eq!(changes.rolled_back, BTreeMap::from([(event_id, 7)]), "with the last place, of this batch too");
    assert_eq!(changes.items[0].last_grant, Some(LastGrant { arrival: 7, granted_at: at(7) }));
    assert_eq!((changes.items[0].units, changes.corrections.len()), (4, 3), "the holds of the others go");
}

#[test]
fn an_item_that_is_not_in_the_stock_is_not_ready() {
    assert_eq!(ledger(Vec::new()).reserve(&grant(1, &[(1, 1, 0)]), NOW), refused(RefusalReason::NotReady, 1, 0));
    let elsewhere = Item { event_id: EventId::from_uuid(Uuid::from_u128(9)), ..item(1, 5) };
    assert_eq!(ledger(vec![elsewhere]).reserve(&grant(1, &[(1, 1, 0)]), NOW), refused(RefusalReason::NotReady, 1, 0));
}

#[test]
fn a_repeat_is_answered_as_the_order_is_in_the_ledger() {
    let items = [item(1, 5)];
    let mut ledger = ledger(items.to_vec());
    let first = grant(1, &[(1, 2, 1)]);
    ledger.reserve(&first, NOW);
    let again = ledger.reserve(&Grant { arrival: 9, granted_at: LATER, ..first.clone() }, LATER);
    let expected = ReservedUnits { lines: first.lines.clone(), arrival: 1, committed_at: NOW, is_new: false };
    assert_eq!(*reserved(&again), expected);
    let changes = ledger.changes();
    assert_eq!((changes.items[0].units, changes.entries.len()), (2, 1));

    let mut ledger = reread(&items, &changes);
    assert_eq!(*reserved(&ledger.reserve(&Grant { is_repeat: true, ..first.clone() }, LATER)), expected);
    let other = Grant { fingerprint: Fingerprint::new([2; Fingerprint::LEN]), is_repeat: true, ..first };
    assert_eq!(ledger.reserve(&other, LATER), of_order(RefusalReason::RequestIdReused));
    assert_eq!(ledger.changes(), Changes::default());
}

#[test]
fn a_hold_beside_its_order_in_the_ledger_goes_with_a_copy_of_what_the_buyer_has() {
    let items = [item(1, 5)];
    let mut ledger = ledger(items.to_vec());
    let first = grant(1, &[(1, 2, 0)]);
    ledger.reserve(&first, NOW);
    let mut ledger = reread(&items, &ledger.changes());
    // Whoever has committed it may have died before Redis had its copy.
    assert!(!reserved(&ledger.reserve(&first, LATER)).is_new);
    let changes = ledger.changes();
    assert_eq!((changes.items, changes.entries), (vec![], vec![]));
    let copies: Vec<_> = changes.corrections.iter().map(|copy| (copy.after, copy.buyers.clone())).collect();
    assert_eq!(copies, [(Committed { units: 2, gift_units: 0, version: 1 }, vec![(user_id(1), 2)])]);
}

#[test]
fn a_repeat_of_an_order_that_gave_its_units_back_takes_none() {
    let items = [item(1, 1)];
    let mut ledger = ledger(items.to_vec());
    ledger.reserve(&grant(1, &[(1, 1, 0)]), NOW);
    ledger.apply(&LedgerCommand::Release(order_id(1)), NOW);
    let mut ledger = reread(&items, &ledger.changes());
    let repeat = Grant { is_repeat: true, ..grant(1, &[(1, 1, 0)]) };
    assert_eq!(ledger.reserve(&repeat, LATER), of_order(RefusalReason::Released));
    assert_eq!(ledger.changes(), Changes::default());
}

#[test]
fn a_repeat_whose_rows_are_gone_is_to_be_asked_for_anew() {
    let repeat = Grant { is_repeat: true, ..grant(1, &[(1, 1, 0)]) };
    assert_eq!(ledger(vec![item(1, 1)]).reserve(&repeat, NOW), of_order(RefusalReason::NotReady));
}

#[test]
fn an_order_that_was_never_written_may_be_placed_anew_with_another_body() {
    let items = [item(1, 1), item(2, 1)];
    let mut ledger = ledger(items.to_vec());
    ledger.reserve(&grant(1, &[(1, 1, 0)]), NOW);
    let mut ledger = reread(&items, &ledger.changes());
    assert!(ledger.void(order_id(1), LATER) && !ledger.void(order_id(1), LATER) && !ledger.void(order_id(2), LATER));
    let changes = ledger.changes();
    assert_eq!(changes.items[0].after, Committed { units: 0, gift_units: 0, version: 2 });
    assert_eq!(changes.items[0].buyers, [(user_id(1), 0)]);

    let mut ledger = reread(&items, &changes);
    let other = Grant { arrival: 9, fingerprint: Fingerprint::new([2; Fingerprint::LEN]), ..grant(1, &[(2, 1, 0)]) };
    assert!(reserved(&ledger.reserve(&other, LATER)).is_new);
    assert!(!reserved(&ledger.reserve(&other, LATER)).is_new);
    assert_eq!(ledger.apply(&LedgerCommand::Release(order_id(1)), LATER), None);
    assert_eq!(ledger.reserve(&other, LATER), of_order(RefusalReason::Released), "it was written, and has ended");
}

#[test]
fn units_come_back_once() {
    let items = [item(1, 1)];
    let mut ledger = ledger(items.to_vec());
    ledger.reserve(&grant(1, &[(1, 1, 0)]), NOW);
    let mut ledger = reread(&items, &ledger.changes());
    ledger.apply(&LedgerCommand::Release(order_id(1)), LATER);
    ledger.apply(&LedgerCommand::Release(order_id(1)), LATER);
    let changes = ledger.changes();
    assert_eq!(changes.items[0].after, Committed { units: 0, gift_units: 0, version: 2 });
    assert_eq!(changes.entries[0].state, EntryState::Released { committed_at: NOW, released_at: LATER });
}

#[test]
fn releasing_what_was_never_committed_changes_nothing() {
    let mut ledger = ledger(vec![item(1, 1)]);
    assert_eq!(ledger.apply(&LedgerCommand::Release(order_id(9)), NOW), None);
    assert_eq!(ledger.changes(), Changes::default());
}

#[test]
fn a_late_payment_takes_the_units_again_once_and_keeps_the_arrival() {
    let items = [item(1, 1)];
    let mut ledger = ledger(items.to_vec());
    ledger.reserve(&grant(7, &[(1, 1, 0)]), NOW);
    ledger.apply(&LedgerCommand::Release(order_id(7)), NOW);
    let mut ledger = reread(&items, &ledger.changes());
    for _ in 0..2 {
        let lines = vec![OrderedLine { item_id: item_id(1), units: 1, gift_units: 0 }];
        assert_eq!(ledger.apply(&paid_late(7, &[(1, 1)]), LATER), Some(MessageBody::Committed { lines }));
    }
    let changes = ledger.changes();
    assert_eq!((changes.entries[0].arrival, changes.items[0].units), (7, 1));
    assert_eq!(changes.entries[0].state, EntryState::Committed { at: LATER });
}

#[test]
fn a_late_payment_gets_the_units_though_its_gift_is_gone() {
    let mut ledger = ledger(vec![item(1, 2)]);
    ledger.reserve(&grant(1, &[(1, 1, 1)]), NOW);
    ledger.apply(&LedgerCommand::Release(order_id(1)), NOW);
    ledger.reserve(&grant(2, &[(1, 1, 1)]), NOW);
    let lines = vec![OrderedLine { item_id: item_id(1), units: 1, gift_units: 1 }];
    let (order_id, user_id, event_id) = (order_id(1), user_id(1), EventId::from_uuid(Uuid::nil()));
    let late = LedgerCommand::CommitAgain(OrderedUnits { order_id, user_id, event_id, lines });
    let lines = vec![OrderedLine { item_id: item_id(1), units: 1, gift_units: 0 }];
    assert_eq!(ledger.apply(&late, LATER), Some(MessageBody::Committed { lines }));
}

#[test]
fn a_late_payment_is_rejected_when_somebody_else_has_the_units() {
    let mut ledger = ledger(vec![item(1, 1)]);
    ledger.reserve(&grant(1, &[(1, 1, 0)]), NOW);
    ledger.apply(&LedgerCommand::Release(order_id(1)), NOW);
    ledger.reserve(&grant(2, &[(1, 1, 0)]), NOW);
    assert_eq!(ledger.apply(&paid_late(1, &[(1, 1)]), LATER), rejected(RejectReason::SoldOut, 1));
    assert_eq!(ledger.apply(&paid_late(3, &[(9, 1)]), LATER), rejected(RejectReason::SoldOut, 9), "of no stock");
}

/// Applies each of these commands twice, and then all of them once more, to order 1, which has one unit of item 1.
/// Returns whether it has the unit at the end, and the answers.
fn repeated(commands: &[LedgerCommand], others: &[u128]) -> (bool, Vec<Option<MessageBody>>) {
    let mut items = vec![item(1, 1)];
    let mut ledger = ledger(items.clone());
    ledger.reserve(&grant(1, &[(1, 1, 0)]), NOW);
    let (mut entries, mut answers) = (Vec::new(), Vec::new());
    let mut buyers_take = others.iter();
    for command in commands.iter().flat_map(|command| [command, command]).chain(commands) {
        answers.push(ledger.apply(command, LATER));
        if let Some(other) = buyers_take.next() {
            ledger.reserve(&grant(*other, &[(1, 1, 0)]), NOW);
        }
        // Written and read again, as between batches.
        let changes = ledger.changes();
        for change in &changes.items {
            items[0].committed = change.after;
        }
        for row in changes.entries {
            entries.retain(|old: &Entry| old.order_id != row.order_id);
            entries.push(row);
        }
        let taken = entries.iter().filter(|row| row.is_committed());
        let buyers = taken.map(|row| ((item_id(1), row.user_id), row.line.units)).collect();
        ledger = LedgerBatch::new(items.clone(), entries.clone(), buyers);
    }
    let has_unit = entries.iter().any(|row| row.order_id == order_id(1) && row.is_committed());
    (has_unit, answers)
}

#[test]
fn a_repeat_of_what_came_before_a_late_payment_takes_nothing_away() {
    let (has_unit, answers) = repeated(&[LedgerCommand::ReleaseUnpaid(order_id(1)), paid_late(1, &[(1, 1)])], &[]);
    let lines = vec![OrderedLine { item_id: item_id(1), units: 1, gift_units: 0 }];
    let committed = Some(MessageBody::Committed { lines });
    assert!(has_unit);
    assert_eq!(answers, [None, None, committed.clone(), committed.clone(), None, committed]);
}

#[test]
fn a_repeat_of_a_late_payment_takes_nothing_once_it_was_refunded() {
    let commands =
        [LedgerCommand::ReleaseUnpaid(order_id(1)), paid_late(1, &[(1, 1)]), LedgerCommand::Release(order_id(1))];
    let (has_unit, answers) = repeated(&commands, &[]);
    assert!(!has_unit);
    assert_eq!(answers[7], Some(MessageBody::GivenBack { item_id: item_id(1) }));
}

/// Returns the answers to the command: two in one batch, and one after the changes were written and read again, with
/// the rows in key order.
fn answered_twice(ledger: &mut LedgerBatch, items: &[Item], command: &LedgerCommand) -> [Option<MessageBody>; 3] {
    let first = ledger.apply(command, LATER);
    let in_batch = ledger.apply(command, LATER);
    let mut changes = std::mem::replace(ledger, self::ledger(Vec::new())).changes();
    changes.entries.sort_by_key(|row| (row.order_id, row.line.item_id));
    [first, in_batch, reread(items, &changes).apply(command, LATER)]
}

#[test]
fn a_repeat_of_a_late_payment_gets_the_same_bytes_whatever_order_its_lines_have() {
    let items = [item(1, 1), item(2, 1)];
    let mut ledger = ledger(items.to_vec());
    ledger.reserve(&grant(1, &[(2, 1, 0), (1, 1, 0)]), NOW);
    ledger.apply(&LedgerCommand::ReleaseUnpaid(order_id(1)), NOW);
    let [first, in_batch, later] = answered_twice(&mut ledger, &items, &paid_late(1, &[(2, 1), (1, 1)]));
    let line = |n| OrderedLine { item_id: item_id(n), units: 1, gift_units: 0 };
    assert_eq!(first, Some(MessageBody::Committed { lines: vec![line(2), line(1)] }));
    assert_eq!((&in_batch, &later), (&first, &first));
}

#[test]
fn a_repeat_of_a_rejected_late_payment_names_the_same_item() {
    // The order has item 3 in the ledger, and not the one at fault, which is in the stock or is not.
    for at_fault in [1, 9] {
        let items = [item(1, 0), item(3, 1)];
        let mut ledger = ledger(items.to_vec());
        ledger.reserve(&grant(1, &[(3, 1, 0)]), NOW);
        ledger.apply(&LedgerCommand::ReleaseUnpaid(order_id(1)), NOW);
        let answers = answered_twice(&mut ledger, &items, &paid_late(1, &[(3, 1), (at_fault, 1)]));
        let named = if at_fault == 1 { 1 } else { 3 };
        assert_eq!(answers, [(); 3].map(|()| rejected(RejectReason::SoldOut, named)), "{at_fault}");
    }
}

#[test]
fn a_late_payment_that_was_rejected_stays_so_when_there_are_units_again() {
    // Order 2 takes the unit once order 1 has given it back, and gives it back after the rejection.
    let commands =
        [LedgerCommand::ReleaseUnpaid(order_id(1)), paid_late(1, &[(1, 1)]), LedgerCommand::Release(order_id(2))];
    let (has_unit, answers) = repeated(&commands, &[2]);
    assert!(!has_unit);
    for answer in [&answers[2], &answers[3], &answers[7]] {
        assert_eq!(*answer, rejected(RejectReason::SoldOut, 1));
    }
}

#[test]
fn a_rejection_is_noted_though_the_ledger_never_had_the_order() {
    let mut ledger = ledger(vec![item(1, 1)]);
    ledger.reserve(&grant(2, &[(1, 1, 0)]), NOW);
    for _ in 0..2 {
        assert_eq!(ledger.apply(&paid_late(1, &[(1, 1)]), LATER), rejected(RejectReason::SoldOut, 1));
        ledger.apply(&LedgerCommand::Release(order_id(2)), LATER);
    }
    assert_eq!(ledger.changes().items[0].after.units, 0);
}

#[test]
fn a_row_that_was_read_without_its_item_is_named() {
    let mut before = ledger(vec![item(1, 5), item(2, 5)]);
    before.reserve(&grant(1, &[(1, 1, 0), (2, 1, 0)]), NOW);
    let rows = before.changes().entries;
    let all = LedgerBatch::new(vec![item(1, 5), item(2, 5)], rows.clone(), Buyers::new());
    assert!(all.items_missing().is_empty());
    let first_only = LedgerBatch::new(vec![item(1, 5)], rows, Buyers::new());
    assert_eq!(first_only.items_missing(), BTreeSet::from([(item_id(2), user_id(1))]));
}
