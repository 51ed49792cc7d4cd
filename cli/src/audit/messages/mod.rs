//! Checks messages: each was sent, is in Kafka unchanged and in order, and took effect at each consumer; none is a dead
//! letter, and none is without a source.
//!
//! The audit compares the messages that an outbox still has; see [`Retention`]. The outbox and its topic are read side
//! by side, in pages and batches, so that a day of messages needs little memory and no long statement.

mod effects;
mod letters;
mod meeting;
mod outbox;
mod rules;
mod sequence;
mod states;
mod transitions;

pub use letters::to_be_replayed;
pub use outbox::unsent;

use super::{
    Args,
    named::Named,
    retention::{Retention, readable},
    sources::Sources,
    verdict::Audit,
};
use crate::kafka::Carried;
use effects::Reading;
use letters::Letters;
use meeting::{Meeting, named};
use outbox::{Floors, Pages};
use prost::Name;
use sequence::Sequence;
use stampede_proto::message::v1 as proto;
use stampede_vocab::{Service, Timestamp};
use states::Tallies;
use transitions::Published;

#[derive(Default)]
struct Compared {
    sent: usize,
    in_kafka: usize,
    effects: usize,
}

/// The states of services that follow from their outboxes.
struct States {
    orders: Tallies,
    events: Published,
}

/// Compares every outbox with its topic, and every topic with the state of its consumers.
pub async fn compare(sources: &Sources, args: &Args, retention: Retention, audit: &mut Audit) -> anyhow::Result<()> {
    retention.note(sources, audit).await?;
    let mut compared = Compared::default();
    let mut states = States { orders: Tallies::default(), events: Published::expected(sources, retention).await? };
    for writer in Service::ALL {
        let mut topic = Topic::of(sources, args, writer, audit).await?;
        topic.read(args, &mut states).await?;
        if writer == Service::Order {
            states.orders.leave_payments_out(topic.discarded(Service::Payment, proto::PaymentRequested::NAME));
        }
        topic.report(retention, &mut compared, audit);
    }
    audit.figure(4, "messages sent", i64::try_from(compared.sent)?);
    audit.figure(4, "of them in Kafka", i64::try_from(compared.in_kafka)?);
    audit.figure(7, "effects of them", i64::try_from(compared.effects)?);
    letters::nothing_is_parked(sources, audit).await?;
    states.orders.compare(sources, retention, audit).await?;
    states.events.compare(audit);
    Ok(())
}

/// One topic, with the outbox that is sent to it and the services that read it.
struct Topic<'s> {
    sources: &'s Sources,
    writer: Service,
    floors: Floors,
    readers: Vec<Reading>,
    meeting: Meeting,
    sequence: Sequence,
    records: usize,
    whole_since: Option<Timestamp>,
}

impl<'s> Topic<'s> {
    /// Reads the progress of the relay and of the readers. Later reads see the effects up to it.
    async fn of(sources: &'s Sources, args: &Args, writer: Service, audit: &mut Audit) -> anyhow::Result<Self> {
        let floors = Floors::of(sources, writer).await?;
        let mut readers = Vec::new();
        for reader in writer.readers() {
            // The letters are read after the offsets, so that they include all messages below these that were set
            // aside.
            let committed = sources.kafka.committed(writer, reader).await?;
            let letters = Letters::of(sources, args, (writer, reader), audit).await?;
            letters.compare_copies(sources, args, (writer, reader), audit).await?;
            readers.push(Reading { reader, committed, letters, effects: 0, without_effect: Named::default() });
        }
        let (meeting, sequence) = (Meeting::default(), Sequence::default());
        Ok(Self { sources, writer, floors, readers, meeting, sequence, records: 0, whole_since: None })
    }

    /// Reads the topic and the outbox to their ends.
    async fn read(&mut self, args: &Args, states: &mut States) -> anyhow::Result<()> {
        let mut records = self.sources.kafka.read(self.writer.topic(&args.kafka_topic_prefix)).await?;
        let mut pages = Pages::of(self.sources, self.writer);
        while let Some(batch) = records.next().await {
            self.records += batch.len();
            for reading in &mut self.readers {
                reading.compare(self.sources, self.writer, &batch).await?;
            }
            self.take(&batch);
            // Both sides advance together, so that few messages wait for their match.
            let newest_us = batch.iter().map(|record| record.written_us).max().unwrap_or(i64::MIN);
            while !pages.has_reached(newest_us) {
                self.read_page(&mut pages, states).await?;
            }
        }
        self.whole_since = records.finish().await?;
        while !pages.has_reached(i64::MAX - 1) {
            self.read_page(&mut pages, states).await?;
        }
        self.compare_repeats().await
    }

    fn take(&mut self, batch: &[Carried]) {
        for record in batch {
            self.meeting.record(record);
            self.sequence.record(record);
        }
    }

    /// Reads a page of the outbox.
    async fn read_page(&mut self, pages: &mut Pages<'_>, states: &mut States) -> anyhow::Result<()> {
        for message in pages.next().await? {
            self.meeting.message(&message);
            match self.writer {
                Service::Order => states.orders.count(&message),
                Service::Event => states.events.count(&message),
                Service::Coupon | Service::Inventory | Service::Payment => {}
            }
        }
        Ok(())
    }

    /// Reads the outbox once more if some records came twice, to compare the repeats.
    async fn compare_repeats(&mut self) -> anyhow::Result<()> {
        let mut pages = Pages::of(self.sources, self.writer);
        while self.meeting.has_repeats() && !pages.has_reached(i64::MAX - 1) {
            for message in pages.next().await? {
                self.meeting.compare_again(&message);
            }
        }
        Ok(())
    }

    /// Returns the keys of which this reader has discarded messages of this name.
    fn discarded(&self, reader: Service, name: &str) -> impl Iterator<Item = &str> {
        let readings = self.readers.iter().filter(move |reading| reading.reader == reader);
        readings.flat_map(move |reading| reading.letters.discarded(name))
    }

    fn report(mut self, retention: Retention, compared: &mut Compared, audit: &mut Audit) {
        let writer = self.writer;
        audit.figure(7, format!("messages on {writer}"), i64::try_from(self.records).unwrap_or(i64::MAX));
        self.report_alone(retention, compared, audit);
        audit.breach(7, format!("a message of {writer} is another in Kafka than in the outbox"), self.meeting.altered);
        audit.breach(7, format!("two messages of {writer} have one id"), self.meeting.reused);
        let out_of_order = self.sequence.out_of_order;
        audit.breach(7, format!("messages of one aggregate are out of order on {writer}"), out_of_order);
        for Reading { reader, effects, without_effect, .. } in self.readers {
            compared.effects += effects;
            audit.breach(7, format!("a message of {writer} did not take effect in {reader}"), without_effect);
        }
    }

    /// Notes the messages without a record, and the records without a message.
    fn report_alone(&mut self, retention: Retention, compared: &mut Compared, audit: &mut Audit) {
        let (messages, records) = self.meeting.alone();
        compared.sent += self.meeting.met();
        compared.in_kafka += self.meeting.met();
        let (mut unsent, mut lost, mut too_old) = (Named::default(), Named::default(), 0);
        for (id, message) in messages {
            // A message is written to the outbox before it is sent to Kafka.
            let written_at = Timestamp::from_micros(message.written_us);
            if !self.floors.cover(message.partition, message.number) {
                unsent.push(named(&message.key, &id));
            } else if self.whole_since.is_some_and(|since| written_at < since) {
                too_old += 1;
            } else {
                compared.sent += 1;
                lost.push(named(&message.key, &id));
            }
        }
        let writer = self.writer;
        if let Some(since) = self.whole_since.filter(|_| too_old > 0) {
            audit.leave_out(format!(
                "{too_old} messages of {writer} from before {}: Kafka does not keep them any more",
                readable(since)
            ));
        }
        audit.breach(7, format!("a message of {writer} was never sent"), unsent);
        audit.breach(4, format!("a message of {writer} was sent, but is not in Kafka"), lost);
        let kept_since_us = retention.outboxes_since.micros();
        let unknown = records.iter().filter(|(_, record)| record.written_us >= kept_since_us);
        let unknown = unknown.map(|(id, record)| named(&record.content.key, id)).collect();
        audit.breach(7, format!("a message on {writer} is in no outbox"), unknown);
    }
}
