//! A TCP proxy between a process and one of its servers, for fault injection: freezes, delays, disconnects, and counts.
//!
//! A test that has to kill a process at one exact point freezes the connection there. Nothing passes any more in either
//! direction, so the process waits and the server keeps its state, while the test examines both. A test that wants a
//! process to see a failed transaction breaks that off.

use crate::{
    breaks::{Break, BreakAt, Breaks, Passing, Transaction},
    statements::Spoken,
};
use anyhow::{Context, Result};
use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream, lookup_host,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::sleep,
};

/// Most bytes that are forwarded at once.
const CHUNK: usize = 64 * 1024;
/// The connection of a freeze that no write has caused: connections are counted from 1 on.
const NO_CONNECTION: u64 = 0;

/// Which writes of the clients are counted. A write is the result of one read: one statement or command, of a client
/// that waits for its answer before it sends the next one, unless it is longer than 64 KiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writes {
    /// Those that have these bytes in them, on whatever connection.
    With(Vec<u8>),
    /// The first that has these bytes in it, and from then on all of its connection.
    From(Vec<u8>),
}

/// Where it freezes, by the number of a matching write; the first one is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreezeAt {
    /// Answers to earlier writes are forwarded, this write is not.
    Before(usize),
    /// This write is forwarded, its answer is not.
    After(usize),
}

/// The condition of a freeze.
struct Trap {
    writes: Writes,
    at: FreezeAt,
    seen: usize,
    connection: Option<u64>,
}

/// Where it was frozen.
#[derive(Debug, Clone)]
struct Frozen {
    write: Vec<u8>,
    connection: u64,
    /// Whether the server has answered all earlier writes.
    is_settled: bool,
}

#[derive(Debug, Clone, Default)]
struct Gate {
    frozen: Option<Frozen>,
    /// How often every connection was cut.
    cuts: u64,
}

struct Shared {
    trap: Mutex<Option<Trap>>,
    gate: watch::Sender<Gate>,
    /// How long everything is on its way, in microseconds.
    delay_us: AtomicU64,
    breaks: Breaks,
    writes: AtomicUsize,
    statements: AtomicUsize,
}

/// A proxy of one server. Its connections end when it is dropped.
pub struct Proxy {
    url: String,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy of the server of this URL (`scheme://[user:password@]host:port[/path]`). Fails if it has no host
    /// and port. Needs a tokio runtime.
    pub async fn to_url(url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").with_context(|| format!("{url} has no scheme"))?;
        let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        let (user, host) = authority.rsplit_once('@').map_or(("", authority), |(_, host)| {
            let with_sign = authority.len() - host.len();
            (&authority[..with_sign], host)
        });
        let upstream = address_of(host).await?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("{scheme}://{user}{}{path}", listener.local_addr()?);
        Ok(Self::start(listener, upstream, url))
    }

    /// Starts a proxy of the server at this `host:port`, at the address of `listener`: for a server that advertises a
    /// fixed address to its clients. Fails if the host has no address. Needs a tokio runtime.
    pub async fn to_server(server: &str, listener: TcpListener) -> Result<Self> {
        let url = listener.local_addr()?.to_string();
        Ok(Self::start(listener, address_of(server).await?, url))
    }

    fn start(listener: TcpListener, upstream: SocketAddr, url: String) -> Self {
        let (trap, gate) = (Mutex::new(None), watch::Sender::new(Gate::default()));
        let (delay_us, breaks) = (AtomicU64::new(0), Breaks::default());
        let (writes, statements) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let shared = Arc::new(Shared { trap, gate, delay_us, breaks, writes, statements });
        let accepting = tokio::spawn(accept_all(listener, upstream, shared.clone()));
        Self { url, shared, accepting }
    }

    /// Returns the URL of the server through this proxy, or the `host:port` if the server was named so.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Freezes all connections there, once, counting from now on.
    pub fn freeze(&self, writes: Writes, at: FreezeAt) {
        *self.shared.lock() = Some(Trap { writes, at, seen: 0, connection: None });
    }

    /// Freezes all connections now. New connections are accepted, and frozen too.
    pub fn freeze_now(&self) {
        *self.shared.lock() = None;
        let frozen = Frozen { write: Vec::new(), connection: NO_CONNECTION, is_settled: true };
        self.shared.gate.send_modify(|gate| gate.frozen = Some(frozen));
    }

    /// Returns whether it is frozen.
    pub fn is_frozen(&self) -> bool {
        self.shared.gate.borrow().frozen.is_some()
    }

    /// Waits until it is frozen and the server has answered all earlier writes. Returns the write that caused it, which
    /// is empty after [`Self::freeze_now`].
    pub async fn frozen(&self) -> Vec<u8> {
        let mut gate = self.shared.gate.subscribe();
        let settled = |gate: &Gate| gate.frozen.as_ref().is_some_and(|frozen| frozen.is_settled);
        let reached = gate.wait_for(settled).await.expect("the sender lives as long as the proxy");
        reached.frozen.as_ref().map(|frozen| frozen.write.clone()).unwrap_or_default()
    }

    /// Delays everything by so long from now on, one part of at most 64 KiB after the other in each direction of a
    /// connection: as a link of that latency and of little bandwidth does. Zero makes it fast again.
    pub fn slow_down(&self, delay: Duration) {
        let delay_us = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.shared.delay_us.store(delay_us, Ordering::Release);
    }

    /// Continues all connections.
    pub fn thaw(&self) {
        *self.shared.lock() = None;
        self.shared.gate.send_modify(|gate| gate.frozen = None);
    }

    /// Closes every connection, drops what is held on it, and forwards new ones.
    pub fn cut(&self) {
        *self.shared.lock() = None;
        self.shared.gate.send_modify(|gate| *gate = Gate { frozen: None, cuts: gate.cuts + 1 });
    }

    /// Returns how many writes of the clients were forwarded.
    pub fn writes(&self) -> usize {
        self.shared.writes.load(Ordering::Acquire)
    }

    /// Returns how many statements of committed transactions with writes were forwarded, if this is the proxy of a
    /// database. Statements with autocommit are not counted.
    pub fn statements(&self) -> usize {
        self.shared.statements.load(Ordering::Acquire)
    }

    /// Breaks off the first transaction that begins from now on and has all of these texts in one of its writes. Its
    /// connection alone is closed.
    pub fn break_off(&self, marks: &[impl AsRef<str>], at: BreakAt) -> Break {
        self.shared.breaks.set(marks, at, false)
    }

    /// Breaks off one such transaction at each point.
    pub fn break_off_everywhere(&self, marks: &[impl AsRef<str>]) -> [Break; 3] {
        BreakAt::ALL.map(|at| self.break_off(marks, at))
    }

    /// Breaks off every such transaction until [`Break::mend`].
    pub fn keep_breaking(&self, marks: &[impl AsRef<str>], at: BreakAt) -> Break {
        self.shared.breaks.set(marks, at, true)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Trap {
    /// Counts a write. Returns whether the proxy freezes at it.
    fn springs_at(&mut self, connection: u64, write: &[u8]) -> bool {
        let is_counted = match &self.writes {
            Writes::With(marker) => contains(write, marker),
            Writes::From(marker) => match self.connection {
                Some(followed) => followed == connection,
                None => contains(write, marker),
            },
        };
        if is_counted {
            self.connection = Some(connection);
            self.seen += 1;
        }
        let (FreezeAt::Before(number) | FreezeAt::After(number)) = self.at;
        is_counted && self.seen == number
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<Trap>> {
        self.trap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for as long as what was just read is on its way.
    async fn travel(&self) {
        let delay_us = self.delay_us.load(Ordering::Acquire);
        if delay_us > 0 {
            sleep(Duration::from_micros(delay_us)).await;
        }
    }

    /// Returns whether a write is forwarded now. Freezes all connections if it is the one to freeze at.
    fn passes(&self, connection: u64, write: &[u8]) -> bool {
        let mut trap = self.lock();
        if self.gate.borrow().frozen.is_some() {
            return false;
        }
        let Some(at) = trap.as_mut().and_then(|trap| trap.springs_at(connection, write).then_some(trap.at)) else {
            return true;
        };
        *trap = None;
        let passes = matches!(at, FreezeAt::After(_));
        let frozen = Frozen { write: write.to_vec(), connection, is_settled: !passes };
        self.gate.send_modify(|gate| gate.frozen = Some(frozen));
        passes
    }

    /// Notes that the server has answered on this connection, if a freeze waits for that.
    fn answered(&self, connection: u64) {
        self.gate.send_if_modified(|gate| match &mut gate.frozen {
            Some(frozen) if frozen.connection == connection && !frozen.is_settled => {
                frozen.is_settled = true;
                true
            }
            _ => false,
        });
    }

    async fn carry_writes(
        &self,
        (connection, is_unanswered): (u64, &AtomicBool),
        from: &mut ReadHalf<'_>,
        to: &mut WriteHalf<'_>,
    ) -> io::Result<()> {
        let mut gate = self.gate.subscribe();
        let mut chunk = vec![0; CHUNK];
        let (mut transaction, mut spoken) = (Transaction::default(), Spoken::default());
        loop {
            let write = match from.read(&mut chunk).await? {
                0 => return Ok(()),
                length => &chunk[..length],
            };
            self.travel().await;
            match self.breaks.pass(&mut transaction, write) {
                Passing::Whole => {}
                Passing::Unanswered => is_unanswered.store(true, Ordering::Release),
                Passing::Broken => return Ok(()),
            }
            if !self.passes(connection, write) {
                until(&mut gate, |gate| gate.frozen.is_none()).await;
            }
            self.writes.fetch_add(1, Ordering::AcqRel);
            if let Some(statements) = spoken.hear(write) {
                self.statements.fetch_add(statements, Ordering::AcqRel);
            }
            to.write_all(write).await?;
        }
    }

    async fn carry_answers(
        &self,
        (connection, is_unanswered): (u64, &AtomicBool),
        from: &mut ReadHalf<'_>,
        to: &mut WriteHalf<'_>,
    ) -> io::Result<()> {
        let mut gate = self.gate.subscribe();
        let mut chunk = vec![0; CHUNK];
        loop {
            let answer = match from.read(&mut chunk).await? {
                0 => return Ok(()),
                length => &chunk[..length],
            };
            self.travel().await;
            self.answered(connection);
            if is_unanswered.load(Ordering::Acquire) {
                return Ok(());
            }
            until(&mut gate, |gate| gate.frozen.is_none()).await;
            to.write_all(answer).await?;
        }
    }
}

async fn address_of(server: &str) -> Result<SocketAddr> {
    lookup_host(server).await?.next().with_context(|| format!("{server} has no address"))
}

async fn accept_all(listener: TcpListener, upstream: SocketAddr, shared: Arc<Shared>) {
    // They end with this task.
    let mut connections = JoinSet::new();
    let mut number = 0;
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        number += 1;
        connections.spawn(carry(client, upstream, shared.clone(), number));
    }
}

/// Forwards one connection until either side closes it, or it is cut.
async fn carry(client: TcpStream, upstream: SocketAddr, shared: Arc<Shared>, connection: u64) {
    let mut gate = shared.gate.subscribe();
    let cuts = gate.borrow().cuts;
    tokio::select! {
        // The other end sees that the connection was closed.
        _ = carry_both(client, upstream, &shared, connection) => {}
        () = until(&mut gate, move |gate| gate.cuts != cuts) => {}
    }
}

async fn carry_both(mut client: TcpStream, upstream: SocketAddr, shared: &Shared, connection: u64) -> io::Result<()> {
    let mut server = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    // Set before the write is forwarded, since its answer is not.
    let is_unanswered = AtomicBool::new(false);
    let connection = (connection, &is_unanswered);
    tokio::select! {
        ended = shared.carry_writes(connection, &mut from_client, &mut to_server) => ended,
        ended = shared.carry_answers(connection, &mut from_server, &mut to_client) => ended,
    }
}

/// Waits until the condition holds, or the proxy is dropped.
async fn until(gate: &mut watch::Receiver<Gate>, is_so: impl FnMut(&Gate) -> bool) {
    drop(gate.wait_for(is_so).await);
}

/// Whether the marker is anywhere in the write.
pub fn contains(write: &[u8], marker: &[u8]) -> bool {
    marker.is_empty() || write.windows(marker.len()).any(|part| part == marker)
}
