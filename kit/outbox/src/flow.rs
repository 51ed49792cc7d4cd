//! Flow control: which messages may be queued at the producer now. Keeps the order of each aggregate, and no partition
//! of the topic starves the others.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};
use tokio::time::Instant;

/// Back-off of a refused message.
const RETRY: Duration = Duration::from_secs(1);
/// Pause after the producer's queue was full, unless a delivery completes before.
const FULL_PAUSE: Duration = Duration::from_millis(100);
/// Most messages in flight, over all partitions of the topic. The queue of the producer takes 20,000.
const IN_FLIGHT: usize = 16_000;
/// How long after an acknowledgement a partition of the topic is assumed to know the producer id. Brokers keep it for a
/// day by default (`producer.id.expiration.ms`).
const KNOWN_TERM: Duration = Duration::from_secs(3_600);

/// A message without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    pub id: u64,
    /// Partition of the outbox.
    pub partition: u16,
    /// Partition of the topic.
    pub slot: usize,
    /// Hash of its aggregate. A collision only makes both slower.
    pub key: u64,
}

/// One partition of the topic.
#[derive(Debug, Default)]
struct Slot {
    in_flight: usize,
    waiting: BTreeMap<u64, Item>,
    known_until: Option<Instant>,
}

impl Slot {
    /// Returns how many more may be queued, with at most `most` in flight.
    ///
    /// It is one at a time until the partition knows the producer id. From an unknown producer a broker accepts a
    /// request with any sequence number: if it refuses the first of two requests in flight, because it is not the
    /// leader yet, and accepts the second, the client concludes that the first was written too, and reports it as
    /// acknowledged (KAFKA-15591, and issue 921 of confluent-kafka-go). That message is lost.
    fn room(&self, most: usize, now: Instant) -> usize {
        let most = if self.is_known(now) { most } else { 1 };
        most.saturating_sub(self.in_flight)
    }

    fn is_known(&self, now: Instant) -> bool {
        self.known_until.is_some_and(|until| now < until)
    }
}

/// Aggregates that are blocked by a refused message.
#[derive(Debug, Default)]
struct Stuck {
    keys: HashSet<u64>,
    items: BTreeMap<u64, Item>,
    /// When they are retried.
    until: Option<Instant>,
}

/// The messages that were read and that Kafka has not acknowledged.
#[derive(Debug)]
pub struct Flow {
    slots: Vec<Slot>,
    most_of_slot: usize,
    /// Those in flight, by ticket. A ticket that is missing belongs to a delivery that was recalled.
    sending: HashMap<u64, Item>,
    last_ticket: u64,
    stuck: Stuck,
    /// Until then nothing is queued: the producer's queue was full.
    paused_until: Option<Instant>,
}

impl Flow {
    /// Returns the flow of a topic with so many partitions.
    pub fn new(partitions: u32) -> Self {
        let count = usize::try_from(partitions).unwrap_or(1).max(1);
        Self {
            slots: std::iter::repeat_with(Slot::default).take(count).collect(),
            most_of_slot: (IN_FLIGHT / count).clamp(50, 1_000),
            sending: HashMap::new(),
            last_ticket: 0,
            stuck: Stuck::default(),
            paused_until: None,
        }
    }

    fn is_paused(&self, now: Instant) -> bool {
        self.paused_until.is_some_and(|until| now < until)
    }

    /// Returns how many messages wait.
    pub fn waiting(&self) -> usize {
        self.stuck.items.len() + self.slots.iter().map(|slot| slot.waiting.len()).sum::<usize>()
    }

    /// Returns how many messages are in flight.
    pub fn in_flight(&self) -> usize {
        self.sending.len()
    }

    /// Returns whether any of these partitions has a message in flight.
    pub fn has_in_flight(&self, of: impl Fn(u16) -> bool) -> bool {
        self.sending.values().any(|item| of(item.partition))
    }

    /// Returns whether a partition of the topic may have forgotten the producer id while several messages to it are in
    /// flight: they have to be recalled, and sent one at a time.
    pub fn is_forgotten(&self, now: Instant) -> bool {
        self.slots.iter().any(|slot| slot.in_flight > 1 && !slot.is_known(now))
    }

    /// Returns whether a waiting message could be sent now.
    pub fn has_ready(&self, now: Instant) -> bool {
        if self.is_paused(now) {
            return false;
        }
        let has_room = |slot: &Slot| !slot.waiting.is_empty() && slot.room(self.most_of_slot, now) > 0;
        self.stuck.until.is_some_and(|until| until <= now) || self.slots.iter().any(has_room)
    }

    /// Removes and returns up to `count` waiting messages for which there is room. They must be passed to
    /// [`Flow::admits`] again, ordered by id, before any later message.
    pub fn take_ready(&mut self, count: usize, now: Instant) -> Vec<Item> {
        if self.is_paused(now) {
            return Vec::new();
        }
        self.release_stuck(now);
        let most = self.most_of_slot;
        let with_room = self.slots.iter_mut().filter(|slot| slot.room(most, now) > 0);
        let mut with_work: Vec<_> = with_room.filter(|slot| !slot.waiting.is_empty()).collect();
        let share = count / with_work.len().max(1);
        let mut ready = Vec::new();
        for slot in &mut with_work {
            let room = slot.room(most, now).min(share.max(1));
            ready.extend(std::iter::from_fn(|| slot.waiting.pop_first()).take(room).map(|(_, item)| item));
        }
        ready
    }

    fn release_stuck(&mut self, now: Instant) {
        if self.stuck.until.is_some_and(|until| until <= now) {
            let Stuck { items, .. } = std::mem::take(&mut self.stuck);
            for item in items.into_values() {
                self.wait(item);
            }
        }
    }

    /// Returns whether a message may be queued now. If not, it waits from here on.
    pub fn admits(&mut self, item: Item, now: Instant) -> bool {
        if self.stuck.keys.contains(&item.key) {
            self.stuck.items.insert(item.id, item);
            return false;
        }
        let slot = &self.slots[item.slot];
        let is_next = slot.waiting.first_key_value().is_none_or(|(first, _)| item.id < *first);
        let is_admitted = is_next && slot.room(self.most_of_slot, now) > 0 && !self.is_paused(now);
        if !is_admitted {
            self.wait(item);
        }
        is_admitted
    }

    /// Lets a message wait for which the producer has no room, and every other one.
    pub fn full(&mut self, item: Item, now: Instant) {
        self.wait(item);
        self.paused_until = Some(now + FULL_PAUSE);
    }

    /// Puts a message into the queue of its slot.
    pub fn wait(&mut self, item: Item) {
        self.slots[item.slot].waiting.insert(item.id, item);
    }

    /// Notes that a message was queued. Returns the ticket of this delivery.
    pub fn queued(&mut self, item: Item) -> u64 {
        self.last_ticket += 1;
        self.sending.insert(self.last_ticket, item);
        self.slots[item.slot].in_flight += 1;
        self.last_ticket
    }

    /// Blocks the aggregate of a refused message. Returns whether later messages of it are in flight: then everything
    /// must be recalled, or they would overtake it.
    pub fn refused(&mut self, item: Item, now: Instant) -> bool {
        self.stuck.keys.insert(item.key);
        self.stuck.items.insert(item.id, item);
        self.stuck.until.get_or_insert(now + RETRY);
        self.sending.values().any(|other| other.key == item.key && other.id > item.id)
    }

    /// Ends a delivery, whatever its outcome. Returns its message; `None` if it was recalled before.
    pub fn completed(&mut self, ticket: u64) -> Option<Item> {
        let item = self.sending.remove(&ticket)?;
        self.slots[item.slot].in_flight -= 1;
        self.paused_until = None;
        Some(item)
    }

    /// Notes that a message was acknowledged, so that its partition of the topic knows the producer id.
    pub fn acknowledged(&mut self, item: Item, now: Instant) {
        self.slots[item.slot].known_until = Some(now + KNOWN_TERM);
    }

    /// Puts everything in flight back into the queues: the producer is being purged.
    pub fn recall(&mut self) {
        for slot in &mut self.slots {
            slot.in_flight = 0;
        }
        for (_, item) in std::mem::take(&mut self.sending) {
            self.wait(item);
        }
    }

    /// Drops the waiting messages of a partition of the outbox.
    pub fn drop_waiting(&mut self, partition: u16) {
        self.stuck.items.retain(|_, item| item.partition != partition);
        if self.stuck.items.is_empty() {
            self.stuck = Stuck::default();
        }
        for slot in &mut self.slots {
            slot.waiting.retain(|_, item| item.partition != partition);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(id: u64, slot: usize, key: u64) -> Item {
        Item { id, partition: 0, slot, key }
    }

    fn ids(items: &[Item]) -> Vec<u64> {
        items.iter().map(|item| item.id).collect()
    }

    /// A flow whose producer id every partition knows.
    fn known(partitions: usize) -> Flow {
        let mut flow = Flow::new(u32::try_from(partitions).unwrap());
        for slot in 0..partitions {
            flow.acknowledged(item(0, slot, 0), Instant::now());
        }
        flow
    }

    /// Offers and queues ids of slot 0 until one is not admitted. Returns the tickets.
    fn fill(flow: &mut Flow) -> Vec<u64> {
        let mut tickets = Vec::new();
        for id in 1.. {
            if !flow.admits(item(id, 0, id), Instant::now()) {
                break;
            }
            tickets.push(flow.queued(item(id, 0, id)));
        }
        tickets
    }

    #[test]
    fn a_full_slot_blocks_its_own_messages_and_no_others() {
        let mut flow = known(4);
        let tickets = fill(&mut flow);
        assert_eq!((tickets.len(), flow.waiting()), (1_000, 1));
        assert!(flow.admits(item(2_000, 1, 7), Instant::now()));
        assert!(!flow.has_ready(Instant::now()));
        assert_eq!(flow.completed(tickets[0]).map(|item| item.id), Some(1));
        assert!(!flow.admits(item(2_001, 0, 8), Instant::now()), "not ahead of what waits");
        assert!(flow.has_ready(Instant::now()));
        assert_eq!(ids(&flow.take_ready(100, Instant::now())), [1_001]);
    }

    #[test]
    fn a_partition_that_does_not_know_the_producer_is_sent_one_message_at_a_time() {
        let (mut flow, now) = (Flow::new(2), Instant::now());
        let tickets = fill(&mut flow);
        assert_eq!((tickets.len(), flow.waiting()), (1, 1));
        assert!(flow.admits(item(3, 1, 3), now), "another partition has its own first one");
        let first = flow.completed(tickets[0]).unwrap();
        assert_eq!(flow.take_ready(100, now).len(), 1, "a refusal lets one more try");
        flow.acknowledged(first, now);
        assert!(flow.admits(item(4, 0, 4), now) && flow.has_ready(now + KNOWN_TERM) == flow.has_ready(now));
        flow.queued(item(4, 0, 4));
        assert!(flow.admits(item(5, 0, 5), now));
        assert!(!flow.admits(item(5, 0, 5), now + KNOWN_TERM), "brokers forget a producer that is silent");
    }

    #[test]
    fn a_refused_message_blocks_its_own_aggregate_alone_and_goes_first_afterwards() {
        let (mut flow, now) = (known(1), Instant::now());
        let tickets: Vec<u64> = (1..=3).map(|id| flow.queued(item(id, 0, id % 2))).collect();
        let first = flow.completed(tickets[0]).unwrap();
        assert!(flow.refused(first, now), "3 is on its way");
        flow.recall();
        assert!(flow.completed(tickets[2]).is_none(), "3 is sent again, behind 1");
        let again = flow.take_ready(100, now);
        assert_eq!(ids(&again), [2, 3]);
        let [second, third] = [again[0], again[1]].map(|item| flow.admits(item, now));
        assert!(second && !third);
        assert!(!flow.admits(item(5, 0, 1), Instant::now()));
        assert!(flow.admits(item(6, 0, 0), Instant::now()));
        assert!(flow.take_ready(100, now).is_empty());
        assert_eq!(ids(&flow.take_ready(100, now + RETRY)), [1, 3, 5]);
    }

    #[test]
    fn a_refusal_with_nothing_behind_it_recalls_nothing() {
        let (mut flow, now) = (known(1), Instant::now());
        let tickets: Vec<u64> = (1..=3).map(|id| flow.queued(item(id, 0, id % 2))).collect();
        let last = flow.completed(tickets[2]).unwrap();
        assert!(!flow.refused(last, now), "1 is before it, and 2 is of another aggregate");
        assert_eq!(flow.in_flight(), 2);
    }

    #[test]
    fn a_partition_that_may_have_forgotten_the_producer_must_not_have_two_messages_in_flight() {
        let (mut flow, now) = (known(1), Instant::now());
        let first = flow.queued(item(1, 0, 1));
        assert!(!flow.is_forgotten(now + KNOWN_TERM + RETRY), "one alone is no harm");
        flow.queued(item(2, 0, 2));
        flow.queued(item(3, 0, 3));
        assert!(!flow.is_forgotten(now) && flow.is_forgotten(now + KNOWN_TERM + RETRY));
        let completed = flow.completed(first).unwrap();
        flow.acknowledged(completed, now + KNOWN_TERM);
        assert!(!flow.is_forgotten(now + KNOWN_TERM + RETRY), "it was acknowledged just now");
        let later = now + 2 * KNOWN_TERM + RETRY;
        assert!(flow.is_forgotten(later));
        flow.recall();
        assert!(!flow.is_forgotten(later));
        assert_eq!(ids(&flow.take_ready(100, later)), [2], "one at a time");
    }

    #[test]
    fn a_full_producer_gets_nothing_until_a_delivery_completes_or_the_pause_ends() {
        let (mut flow, now) = (known(2), Instant::now());
        let ticket = flow.queued(item(1, 0, 1));
        flow.full(item(2, 0, 2), now);
        assert!(!flow.has_ready(now) && !flow.admits(item(3, 1, 3), now));
        assert!(flow.take_ready(100, now).is_empty());
        assert!(flow.has_ready(now + FULL_PAUSE));
        assert!(flow.completed(ticket).is_some());
        assert!(flow.has_ready(now));
        assert_eq!(ids(&flow.take_ready(100, now)), [2, 3]);
    }

    #[test]
    fn a_message_that_could_not_be_queued_blocks_later_ones_of_its_slot() {
        let mut flow = known(1);
        flow.wait(item(4, 0, 1));
        assert!(!flow.admits(item(5, 0, 1), Instant::now()));
        assert!(flow.admits(item(3, 0, 1), Instant::now()), "it comes before");
    }

    #[test]
    fn a_recalled_message_waits_and_a_late_outcome_of_it_is_ignored() {
        let mut flow = known(2);
        let ticket = flow.queued(item(1, 1, 1));
        flow.recall();
        assert_eq!((flow.completed(ticket), flow.in_flight(), flow.waiting()), (None, 0, 1));
        flow.drop_waiting(0);
        assert_eq!(flow.waiting(), 0);
    }
}
