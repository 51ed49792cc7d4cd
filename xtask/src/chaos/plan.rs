//! The faults of a run, their order and their times: all of it follows from a seed. It has no side effects.

use crate::{
    chaos::{dice::Dice, tables},
    mesh::SCHEMA_PREFIX,
    replicas::{Replicas, replicated},
    servers::Server,
    ui::seconds,
};
use stampede_vocab::{Process, Service};
use std::{fmt, time::Duration};

/// Most orders of the sale before a fault strikes: a fraction of the crowd's.
const MOST_ORDERS_BEFORE: u64 = 12;
/// Duration of a fault, in milliseconds, unless its kind has another. A commit may be on its way as long: that of an
/// order for 7 s by default, before its units go back (`--order-write-limit-ms`, `--unwritten-order-age-ms`).
const SHORTEST_MS: u64 = 1_000;
const LONGEST_MS: u64 = 5_000;
/// The same of one replica that is frozen beside another: longer than the database keeps the locks of a silent session,
/// 8 s by default. Its transaction is rolled back by then, and it must notice that when it continues.
const FROZEN_MS: (u64, u64) = (9_000, 14_000);

/// The target of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// One replica of a process that has more.
    One(Process),
    /// All replicas of a process.
    All(Process),
    Server(Server),
}

/// A fault of a process or a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// It is killed, and started again after a while.
    Kill,
    /// It is frozen for a while.
    Freeze,
    /// It is stopped as in a roll-out, and started again at once.
    Restart,
}

/// The data that Redis has lost when it is back after a kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    Everything,
    /// The last two seconds of its append-only file.
    LastSeconds,
}

/// A fault of the database. A fault of a table names a table that the sale uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseFault {
    /// A table is renamed.
    TableAway(Service, &'static str),
    /// A table refuses new rows, as when the disk is full.
    TableFull(Service, &'static str),
    /// Another session has locked every row of a table.
    RowsLocked(Service, &'static str),
    /// Every connection of a service is killed, at the beginning and at the end.
    ConnectionsKilled(Service),
    /// Every connection is killed, and the server accepts hardly any new one.
    ConnectionsExhausted,
}

/// The link from a process to one that it calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    pub from: Process,
    pub to: Far,
}

/// The far end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Far {
    Server(Server),
    /// A service, the payment provider, or the gateway for the provider's notices.
    Process(Process),
}

/// A fault of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// All bytes arrive late.
    Slow,
    /// Nothing arrives, and no connection is closed.
    Cut,
    /// Every connection is closed.
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Blow(Target, Blow),
    RedisLoses(Loss),
    Database(DatabaseFault),
    Link(Link, Harm),
}

/// One sale with its fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    pub fault: Fault,
    /// It strikes once so many orders of the sale are placed,
    pub after_orders: u64,
    /// and so long after that.
    pub delay: Duration,
    /// Its duration; zero for a restart, which has none.
    pub lasts: Duration,
}

impl Link {
    /// Returns every link from a process to a service that it calls, to a server, to the payment provider, and back
    /// from that.
    pub fn all() -> impl Iterator<Item = Self> {
        Process::all().flat_map(|from| ends_of(from).into_iter().map(move |to| Self { from, to }))
    }

    /// Returns the link of the provider's notices.
    const fn is_of_notices(self) -> bool {
        matches!(self.from, Process::Sandbox)
    }

    /// Returns whether one process of the mesh calls another by it.
    const fn is_of_calls(self) -> bool {
        matches!(self.to, Far::Process(Process::Service(_)))
    }
}

fn ends_of(process: Process) -> Vec<Far> {
    // A process gets the URLs of these, by the same registry.
    let mut ends: Vec<Far> = process.calls().iter().map(|peer| Far::Process((*peer).into())).collect();
    match process {
        Process::Sandbox => ends.push(Far::Process(Process::Gateway)),
        Process::Service(Service::Payment) => ends.push(Far::Process(Process::Sandbox)),
        Process::Service(_) | Process::Gateway => {}
    }
    if let Process::Service(_) = process {
        ends.extend([Far::Server(Server::Database), Far::Server(Server::Kafka)]);
    }
    ends.extend(process.redis().map(|_| Far::Server(Server::Redis)));
    ends
}

/// The first rounds of a seed. Every fault comes once before any comes again, and the kinds of fault take turns.
pub fn draw(seed: u64, replicas: &Replicas, rounds: usize) -> Vec<Round> {
    let mut dice = Dice::of(seed);
    let mut plan = Vec::new();
    while plan.len() < rounds {
        let faults = cycle(&mut dice, replicas);
        plan.extend(faults.into_iter().map(|fault| Round::draw(fault, &mut dice)));
    }
    plan.truncate(rounds);
    plan
}

fn cycle(dice: &mut Dice, replicas: &Replicas) -> Vec<Fault> {
    let mut kinds = kinds(dice, replicas);
    kinds.iter_mut().for_each(|faults| dice.shuffle(faults));
    let longest = kinds.iter().map(Vec::len).max().unwrap_or(0);
    (0..longest).flat_map(|turn| kinds.iter().filter_map(move |faults| faults.get(turn).copied())).collect()
}

fn kinds(dice: &mut Dice, replicas: &Replicas) -> [Vec<Fault>; 8] {
    let redis = [Loss::Everything, Loss::LastSeconds].map(Fault::RedisLoses);
    let (notices, links): (Vec<Link>, Vec<Link>) = Link::all().partition(|link| link.is_of_notices());
    let (calls, links): (Vec<Link>, Vec<Link>) = links.into_iter().partition(|link| link.is_of_calls());
    let provider = notices.into_iter().map(|link| Fault::Link(link, Harm::Refused));
    [
        processes(replicas),
        blows(Target::Server(Server::Redis)).chain(redis).collect(),
        database_faults(dice),
        slow_and_cut(links),
        slow_and_cut(calls),
        blows(Target::Server(Server::Database)).collect(),
        blows(Target::Server(Server::Kafka)).collect(),
        blows(Target::All(Process::Sandbox)).chain(provider).collect(),
    ]
}

fn slow_and_cut(links: Vec<Link>) -> Vec<Fault> {
    links.into_iter().flat_map(|link| [Harm::Slow, Harm::Cut].map(|harm| Fault::Link(link, harm))).collect()
}

fn blows(target: Target) -> impl Iterator<Item = Fault> {
    [Blow::Kill, Blow::Freeze, Blow::Restart].into_iter().map(move |blow| Fault::Blow(target, blow))
}

fn processes(replicas: &Replicas) -> Vec<Fault> {
    let one = replicated().filter(|process| replicas.of(*process) > 1).map(Target::One);
    one.chain(replicated().map(Target::All)).flat_map(blows).collect()
}

fn database_faults(dice: &mut Dice) -> Vec<Fault> {
    let mut all = vec![DatabaseFault::ConnectionsExhausted];
    for service in Service::ALL {
        all.extend([
            DatabaseFault::TableAway(service, dice.one_of(tables::used(service))),
            DatabaseFault::TableFull(service, dice.one_of(tables::inserted_into(service))),
            DatabaseFault::RowsLocked(service, dice.one_of(tables::updated(service))),
            DatabaseFault::ConnectionsKilled(service),
        ]);
    }
    all.into_iter().map(Fault::Database).collect()
}

impl Round {
    fn draw(fault: Fault, dice: &mut Dice) -> Self {
        let after_orders = dice.between(1, MOST_ORDERS_BEFORE);
        let delay_ms = dice.below(400);
        let lasts_ms = match fault {
            Fault::Blow(_, Blow::Restart) => 0,
            Fault::Database(DatabaseFault::TableAway(..) | DatabaseFault::TableFull(..)) => 3_000,
            Fault::Database(DatabaseFault::RowsLocked(..)) => 4_000,
            Fault::Blow(Target::One(_), Blow::Freeze) => dice.between(FROZEN_MS.0, FROZEN_MS.1),
            // Every notice of the sale.
            Fault::Link(_, Harm::Refused) => 8_000,
            Fault::Blow(..) | Fault::RedisLoses(_) | Fault::Database(_) | Fault::Link(..) => {
                dice.between(SHORTEST_MS, LONGEST_MS)
            }
        };
        let [delay, lasts] = [delay_ms, lasts_ms].map(Duration::from_millis);
        Self { fault, after_orders, delay, lasts }
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (fault, orders, delay_ms) = (self.fault.to_string(), self.after_orders, self.delay.as_millis());
        write!(f, "{fault:<60} after {orders:>2} orders and {delay_ms:>3} ms")?;
        if self.lasts.is_zero() { Ok(()) } else { write!(f, ", for {}", seconds(self.lasts)) }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blow(target, blow) => write!(f, "{target}: {}", blow.name()),
            Self::RedisLoses(Loss::Everything) => f.write_str("redis: killed, and back without its data"),
            Self::RedisLoses(Loss::LastSeconds) => f.write_str("redis: killed, and back without its last 2 s"),
            Self::Database(fault) => write!(f, "{fault}"),
            Self::Link(Link { from, to }, harm) => write!(f, "{from} to {to}: {}", harm.name()),
        }
    }
}

impl fmt::Display for DatabaseFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TableAway(service, table) => write!(f, "database: {SCHEMA_PREFIX}{service}.{table} renamed away"),
            Self::TableFull(service, table) => write!(f, "database: {SCHEMA_PREFIX}{service}.{table} full"),
            Self::RowsLocked(service, table) => {
                write!(f, "database: all rows of {SCHEMA_PREFIX}{service}.{table} locked")
            }
            Self::ConnectionsKilled(service) => write!(f, "database: all connections of {service} killed"),
            Self::ConnectionsExhausted => f.write_str("database: connections exhausted"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(process) => write!(f, "one replica of {process}"),
            Self::All(process) => write!(f, "{process}"),
            Self::Server(server) => f.write_str(name_of(*server)),
        }
    }
}

impl fmt::Display for Far {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(server) => f.write_str(name_of(*server)),
            Self::Process(process) => write!(f, "{process}"),
        }
    }
}

impl Blow {
    const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill -9",
            Self::Freeze => "frozen",
            Self::Restart => "restart",
        }
    }
}

impl Harm {
    const fn name(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Cut => "cut",
            Self::Refused => "refused",
        }
    }
}

const fn name_of(server: Server) -> &'static str {
    match server {
        Server::Redis => "redis",
        Server::Database => "database",
        Server::Kafka => "kafka",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replicas;
    use std::collections::BTreeSet;

    fn two_of_each() -> Replicas {
        replicas::of_each(2).parse().expect("well formed")
    }

    fn named(plan: &[Round]) -> Vec<String> {
        plan.iter().map(|round| round.fault.to_string()).collect()
    }

    #[test]
    fn a_seed_gives_the_same_plan_each_time_however_long_it_is() {
        let (short, long) = (draw(7, &two_of_each(), 10), draw(7, &two_of_each(), 300));
        assert_eq!(short, long[..10]);
        assert_ne!(named(&short), named(&draw(8, &two_of_each(), 10)));
    }

    #[test]
    fn every_fault_comes_once_before_any_comes_again() {
        let mut dice = Dice::of(1);
        let count: usize = kinds(&mut dice, &two_of_each()).iter().map(Vec::len).sum();
        let plan = named(&draw(1, &two_of_each(), 2 * count));
        let [first, second] = [&plan[..count], &plan[count..]].map(|half| half.iter().collect::<BTreeSet<_>>());
        assert_eq!((first.len(), second.len()), (count, count));
        for process in replicated() {
            for blow in ["kill -9", "frozen", "restart"] {
                assert!(first.contains(&format!("{process}: {blow}")), "{process}: {blow}");
                assert!(first.contains(&format!("one replica of {process}: {blow}")), "{process}: {blow}");
            }
        }
        for Link { from, to } in Link::all().filter(|link| !link.is_of_notices()) {
            for harm in ["slow", "cut"] {
                assert!(first.contains(&format!("{from} to {to}: {harm}")), "{from} to {to}: {harm}");
            }
        }
    }

    #[test]
    fn one_replica_of_several_is_struck_only_where_there_are_several() {
        let alone = named(&draw(1, &Replicas::default(), 200));
        assert!(alone.iter().all(|fault| !fault.starts_with("one replica")));
    }

    #[test]
    fn only_a_replica_beside_another_stands_still_for_longer_than_its_session_is_kept() {
        let kept = Duration::from_secs(8);
        for round in draw(1, &two_of_each(), 200) {
            let is_one = matches!(round.fault, Fault::Blow(Target::One(_), Blow::Freeze));
            assert_eq!(round.lasts > kept, is_one, "{round}");
        }
        assert!(draw(1, &Replicas::default(), 200).iter().all(|round| round.lasts <= kept));
    }

    #[test]
    fn the_first_rounds_are_of_all_kinds() {
        for seed in 0..20 {
            // A plan draws its tables first: the same ones by the same seed.
            let kinds = kinds(&mut Dice::of(seed), &Replicas::default());
            let first = draw(seed, &Replicas::default(), kinds.len());
            assert!(kinds.iter().zip(&first).all(|(kind, round)| kind.contains(&round.fault)), "{first:?}");
        }
    }

    #[test]
    fn a_fault_names_a_table_that_the_sale_uses_and_seeds_reach_them_all() {
        let drawn: BTreeSet<String> =
            (0..50).flat_map(|seed| database_faults(&mut Dice::of(seed))).map(|fault| fault.to_string()).collect();
        for service in Service::ALL {
            let schema = format!("{SCHEMA_PREFIX}{service}");
            for table in tables::inserted_into(service) {
                assert!(drawn.contains(&format!("database: {schema}.{table} full")), "{schema}.{table}: {drawn:?}");
            }
            for unused in ["outbox_unsent", "inbox", "order_lines", "goods"] {
                let name = format!("{schema}.{unused} ");
                assert!(!drawn.iter().any(|fault| fault.contains(&name)), "{name}");
            }
        }
    }

    #[test]
    fn every_process_has_links_to_all_that_it_uses() {
        let links: Vec<String> = Link::all().map(|link| format!("{} to {}", link.from, link.to)).collect();
        let has = |link: &str| links.iter().any(|one| one == link);
        for link in ["order to kafka", "event to redis", "gateway to redis", "payment to sandbox", "sandbox to gateway"]
        {
            assert!(has(link), "{link}: {links:?}");
        }
        for link in ["order to redis", "gateway to kafka", "order to payment", "order to gateway"] {
            assert!(!has(link), "{link}: {links:?}");
        }
    }

    #[test]
    fn every_call_between_processes_is_a_fault_of_a_kind_of_its_own() {
        let calls: BTreeSet<String> = kinds(&mut Dice::of(1), &Replicas::default())
            .into_iter()
            .find(|faults| faults.iter().any(|fault| fault.to_string() == "gateway to order: slow"))
            .expect("the gateway calls the order service")
            .iter()
            .map(ToString::to_string)
            .collect();
        let gateway = Service::ALL.map(|service| format!("gateway to {service}"));
        let between = ["event to inventory", "coupon to order", "inventory to order", "order to inventory"];
        let links = gateway.into_iter().chain(between.map(str::to_owned)).chain(["order to coupon".to_owned()]);
        let expected = links.flat_map(|link| ["slow", "cut"].map(|harm| format!("{link}: {harm}")));
        assert_eq!(calls, expected.collect());
    }
}
