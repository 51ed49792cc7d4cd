//! Limits the resources that clients hold beyond their connections: requests under way, incomplete bodies, unread
//! answers, streams and their subjects.
//!
//! Each is a [`Pool`] with limits in `crate::bounds`: in all, by address, by buyer. At the limit of one client the
//! refusal is THROTTLED, at that of all it is OVERLOADED; both have a retry delay, and both are counted.

mod body;
mod class;
mod metrics;
mod newest;
mod pool;
mod shared;

use self::pool::{By, Pool};
pub use self::{
    class::Class,
    newest::{newest, subject},
    pool::{Permit, PoolBounds},
    shared::SharedStreams,
};

use crate::{
    bounds::{BODY_PROGRESS_DEADLINE, COUNTED_ANSWER_BYTES, LimitConfig},
    routes::TICKET,
};
use axum::{body::HttpBody, response::Response};
use bytes::Bytes;
use http::{Uri, request::Parts};
use opentelemetry::metrics::Counter;
use stampede_chassis::{Block, Identity, Networks, Offenders, Peer, Role, keep};
use stampede_status::{Problem, Reason};
use std::{sync::Arc, time::Duration};

/// The client that holds a permit.
#[derive(Debug, Clone, Default)]
pub struct Holder {
    /// The client's address; `None` without a connection, as in tests.
    pub block: Option<Block>,
    /// The buyer of the token. Operators have no limit of their own.
    pub user: Option<Arc<str>>,
}

/// The pools of all resources.
pub struct Holds {
    requests: Arc<Pool>,
    bodies: Arc<Pool>,
    answers: Arc<Pool>,
    streams: Arc<Pool>,
    subjects: Arc<Pool>,
    body_limit: usize,
    trusted: Networks,
    refusals: Counter<u64>,
    offenders: Offenders,
}

/// The permits of a stream: its own and those of its subjects.
pub type StreamPermit = (Permit, Permit);

impl Holds {
    pub fn new(limits: &LimitConfig) -> Self {
        let holds = Self {
            requests: Pool::new(limits.requests()),
            bodies: Pool::new(limits.bodies()),
            answers: Pool::new(limits.answers()),
            streams: Pool::new(limits.streams()),
            subjects: Pool::new(limits.subjects()),
            body_limit: limits.body_limit_bytes,
            trusted: limits.trusted(),
            refusals: metrics::refusals(),
            offenders: Offenders::default(),
        };
        let pools = [&holds.requests, &holds.bodies, &holds.answers, &holds.streams, &holds.subjects];
        metrics::observe(pools.map(Arc::downgrade));
        // A series that begins with its first count hides that count from queries of increases.
        metrics::slow_readers().add(0, &[]);
        for pool in pools {
            for by in By::ALL {
                holds.refusals.add(0, &metrics::refusal(pool.bounds.name, by));
            }
        }
        holds
    }

    /// Returns whether the request comes by a trusted proxy.
    pub fn trusts(&self, extensions: &http::Extensions) -> bool {
        extensions.get::<Peer>().is_some_and(|peer| self.trusted.contain(peer.0))
    }

    /// Returns the sender of this request.
    pub fn holder(&self, parts: &Parts, caller: Option<&Identity>) -> Holder {
        let peer = parts.extensions.get::<Peer>();
        let block = peer.map(|peer| Block::of(peer.client(&parts.headers, &self.trusted)));
        let buyer = caller.filter(|caller| caller.role == Role::Buyer);
        Holder { block, user: buyer.map(|buyer| Arc::from(buyer.user_id.as_str())) }
    }

    /// Reads a whole body of a request of this class. Until it is complete its bytes are counted, and it must make
    /// progress.
    pub async fn read(&self, body: axum::body::Body, holder: &Holder, class: Class) -> Result<Bytes, Problem> {
        let take = |units| self.take(&self.bodies, holder, class, units);
        let grow = |permit: &mut Permit, units| permit.grow(units).map_err(|by| self.refused(&self.bodies, holder, by));
        body::read(body, self.body_limit, BODY_PROGRESS_DEADLINE, take, grow).await
    }

    /// Acquires a permit for a request whose body has arrived: until its answer is written.
    pub fn request(&self, holder: &Holder, class: Class) -> Result<Permit, Problem> {
        self.take(&self.requests, holder, class, 1)
    }

    /// Acquires permits for a stream and for each of its subjects, which `uri` names.
    pub fn stream(&self, holder: &Holder, class: Class, uri: &Uri) -> Result<StreamPermit, Problem> {
        self.stream_about(holder, class, subjects(uri))
    }

    /// Acquires permits for a stream and for so many subjects.
    pub fn stream_about(&self, holder: &Holder, class: Class, subjects: usize) -> Result<StreamPermit, Problem> {
        let stream = self.take(&self.streams, holder, class, 1)?;
        let subjects = self.take(&self.subjects, holder, class, subjects)?;
        Ok((stream, subjects))
    }

    /// Returns the largest body, in bytes.
    pub fn body_limit(&self) -> usize {
        self.body_limit
    }

    /// Returns the answer, which holds the permit of its request until it is written; a large one also counts by its
    /// bytes.
    pub fn answer(&self, holder: &Holder, permit: Permit, answer: Response) -> Result<Response, Problem> {
        let bytes = answer.body().size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0);
        self.answer_of(holder, permit, bytes, answer)
    }

    /// Returns the same for an answer of so many bytes, whose body has no size hint.
    pub fn answer_of(
        &self,
        holder: &Holder,
        permit: Permit,
        bytes: usize,
        answer: Response,
    ) -> Result<Response, Problem> {
        if bytes <= COUNTED_ANSWER_BYTES {
            return Ok(keep(answer, permit));
        }
        let unread = self.take(&self.answers, holder, permit.class(), bytes)?;
        Ok(keep(answer, (permit, unread)))
    }

    fn take(&self, pool: &Arc<Pool>, holder: &Holder, class: Class, units: usize) -> Result<Permit, Problem> {
        pool.take(holder, class, units).map_err(|by| self.refused(pool, holder, by))
    }

    /// Counts a refusal. Returns it with a random retry delay.
    fn refused(&self, pool: &Pool, holder: &Holder, by: By) -> Problem {
        let what = pool.bounds.what;
        if let Some(block) = holder.block.filter(|_| by == By::Address) {
            self.offenders.refused(block, pool.bounds.name);
        }
        self.refusals.add(1, &metrics::refusal(pool.bounds.name, by));
        let (reason, detail) = match by {
            By::All => (Reason::Overloaded, format!("too many {what}")),
            By::Address => (Reason::Throttled, format!("too many {what} from this address")),
            By::User => (Reason::Throttled, format!("too many {what} for this buyer")),
        };
        Problem::new(reason, detail).retry_after(Duration::from_millis(rand::random_range(1_000..3_000)))
    }
}

/// Counts the subjects of a stream: the values of its query, such as the ids of the events that are watched; else the
/// one of its path. A ticket names the caller and no subject.
fn subjects(uri: &Uri) -> usize {
    let query = uri.query().unwrap_or_default();
    query.split('&').filter(|pair| !pair.is_empty() && pair.split('=').next() != Some(TICKET)).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bounds::LARGEST_ANSWER_BYTES;
    use clap::{Args, Command, FromArgMatches};
    use std::net::IpAddr;

    fn holds(flags: &[&str]) -> Holds {
        let command = LimitConfig::augment_args(Command::new("gateway"));
        let given = command.get_matches_from([&["gateway"][..], flags].concat());
        Holds::new(&LimitConfig::from_arg_matches(&given).unwrap())
    }

    /// Returns a buyer at an address of their own.
    fn at(last: u8, user: &str) -> Holder {
        Holder { block: Some(Block::of(IpAddr::from([192, 0, 2, last]))), user: Some(Arc::from(user)) }
    }

    #[test]
    fn one_buyer_leaves_one_largest_answer_unread_from_however_many_addresses() {
        let holds = holds(&[]);
        let answer = |holder: Holder, bytes| {
            let permit = holds.request(&holder, Class::PublicReads).unwrap();
            holds.answer_of(&holder, permit, bytes, Response::default())
        };
        let _unread = answer(at(1, "usr_1"), LARGEST_ANSWER_BYTES).unwrap();
        let refused = answer(at(2, "usr_1"), COUNTED_ANSWER_BYTES + 1).unwrap_err();
        assert_eq!(refused.reason(), Reason::Throttled);
        assert!(answer(at(2, "usr_2"), LARGEST_ANSWER_BYTES).is_ok());
    }

    #[test]
    fn one_buyer_has_so_many_streams_from_however_many_addresses_and_all_subjects_of_these() {
        let holds = holds(&["--max-streams-of-user", "2", "--max-subjects", "1000"]);
        let watch = |holder: Holder| holds.stream_about(&holder, Class::OwnReads, 100);
        let _open = [1, 2].map(|last| watch(at(last, "usr_1")).unwrap());
        assert_eq!(watch(at(3, "usr_1")).unwrap_err().reason(), Reason::Throttled);
        assert!(watch(at(3, "usr_2")).is_ok());
    }

    #[test]
    fn what_somebody_has_done_is_answered_while_lists_are_left_unread() {
        let (holds, nobody) = (holds(&["--max-unread-bytes", "1000000"]), Holder::default());
        let answer = |class, bytes| {
            let permit = holds.request(&nobody, class).unwrap();
            holds.answer_of(&nobody, permit, bytes, Response::default())
        };
        let _unread = answer(Class::PublicReads, 700_000).unwrap();
        assert_eq!(answer(Class::PublicReads, 40_000).unwrap_err().reason(), Reason::Overloaded);
        assert!(answer(Class::Ordering, 40_000).is_ok(), "its share is its own");
    }

    #[test]
    fn a_stream_counts_by_what_it_is_about() {
        for (uri, expected) in [
            ("/v1/events/evt_1/stock:watch", 1),
            ("/v1/events:watch?event_ids=a", 1),
            ("/v1/events:watch?event_ids=a&event_ids=b&&event_ids=c", 3),
            ("/v1/events:watch?event_ids=a&event_ids=b&ticket=c.d.e", 2),
        ] {
            assert_eq!(subjects(&Uri::from_static(uri)), expected, "{uri}");
        }
    }
}
