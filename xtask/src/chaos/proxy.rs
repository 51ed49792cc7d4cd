//! A TCP proxy between a process and a server, which can be slow, silent, or closed. It knows no protocol.

use anyhow::Context;
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// Most bytes that are passed on at once.
const CHUNK: usize = 64 * 1024;
/// Stack of a thread, which copies one direction of a connection.
const STACK: usize = 128 * 1024;
/// Most connections at a time, far more than all pools of a process have.
const MAX_CONNECTIONS: usize = 512;
/// Longest wait for a server to take a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How a link carries bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Traffic {
    /// Bytes arrive at once.
    #[default]
    Flows,
    /// They arrive so much later, in each direction.
    Slow(Duration),
    /// Neither bytes nor ends of connections arrive before it flows again.
    Cut,
    /// Connections are closed, and new ones too.
    Refused,
}

/// The state of a link.
#[derive(Default)]
struct State {
    traffic: Traffic,
    /// Whether bytes, the end of a connection or a new one came meanwhile, and did not arrive at once.
    has_struck: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    connections: AtomicUsize,
}

/// A proxy in front of servers on the loopback. Each connection goes to one that accepts it, in turn.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Listens in front of the servers at these ports.
    pub fn open(servers: Vec<u16>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port is free for a proxy")?;
        let port = listener.local_addr().context("a listener has an address")?.port();
        let shared = Arc::<Shared>::default();
        let accepting = Arc::clone(&shared);
        spawn(move || accept_all(&listener, &servers, &accepting)).context("cannot start a thread for a proxy")?;
        Ok(Self { port, shared })
    }

    /// Returns the port that clients connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes the state of the link from now on.
    pub fn set(&self, traffic: Traffic) {
        *self.shared.state() = State { traffic, has_struck: false };
        self.shared.changed.notify_all();
    }

    /// Returns whether the link has made late, held or refused anything since it was set to its present state.
    pub fn has_struck(&self) -> bool {
        self.shared.state().has_struck
    }
}

/// An error is harmless: the remaining connections end with the proxy.
impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(Traffic::Refused);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the delay of the link. Returns whether the bytes arrive.
    fn arrives(&self) -> bool {
        let mut state = self.state();
        if state.traffic != Traffic::Flows {
            state.has_struck = true;
        }
        let whole = self.changed.wait_while(state, |state| state.traffic == Traffic::Cut);
        let traffic = whole.unwrap_or_else(PoisonError::into_inner).traffic;
        if let Traffic::Slow(by) = traffic {
            thread::sleep(by);
        }
        traffic != Traffic::Refused
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    thread::Builder::new().name("proxy".into()).stack_size(STACK).spawn(work).map(drop)
}

/// Accepts connections until the program ends.
fn accept_all(listener: &TcpListener, servers: &[u16], shared: &Arc<Shared>) {
    for (turn, client) in listener.incoming().enumerate() {
        let Ok(client) = client else { continue };
        if shared.connections.load(Ordering::Relaxed) >= MAX_CONNECTIONS {
            continue;
        }
        let mut servers = servers.to_vec();
        let first = turn % servers.len().max(1);
        servers.rotate_left(first);
        let shared = Arc::clone(shared);
        // Without a thread the client's connection is closed, as by a proxy that is overloaded.
        drop(spawn(move || {
            shared.connections.fetch_add(1, Ordering::Relaxed);
            carry(&client, &servers, &shared);
            shared.connections.fetch_sub(1, Ordering::Relaxed);
        }));
    }
}

/// Forwards one connection until either side ends it. If no server accepts it, the client's is closed at once.
fn carry(client: &TcpStream, servers: &[u16], shared: &Arc<Shared>) {
    if !shared.arrives() {
        return;
    }
    let Some(server) = servers.iter().find_map(|port| connect(*port)) else { return };
    // Small requests and answers would wait for one another otherwise.
    if client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).is_err() {
        return;
    }
    let (Ok(to_client), Ok(from_server)) = (client.try_clone(), server.try_clone()) else { return };
    let answers = Arc::clone(shared);
    if spawn(move || pass_on(&from_server, &to_client, &answers)).is_ok() {
        pass_on(client, &server, shared);
    }
}

fn connect(port: u16) -> Option<TcpStream> {
    TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), CONNECT_TIMEOUT).ok()
}

/// Copies bytes in one direction. The end of either side ends both.
fn pass_on(mut from: &TcpStream, mut to: &TcpStream, shared: &Shared) {
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = from.read(&mut chunk).unwrap_or(0);
        if !shared.arrives() || length == 0 || to.write_all(&chunk[..length]).is_err() {
            break;
        }
    }
    for side in [from, to] {
        // It may have ended already, which is the aim.
        let _ended = side.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    /// Longer than anything here takes on a busy machine.
    const SOON: Duration = Duration::from_secs(20);

    /// An echo server, for any number of connections.
    fn echo() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.expect("it connects");
                thread::spawn(move || pass_on(&client, &client, &Shared::default()));
            }
        });
        port
    }

    fn client_of(proxy: &Proxy) -> TcpStream {
        let stream = connect(proxy.port()).expect("the proxy listens");
        stream.set_read_timeout(Some(SOON)).expect("a time-out is no problem");
        stream
    }

    /// Sends one byte, and returns the echo.
    fn exchange(mut stream: &TcpStream) -> Option<u8> {
        let mut byte = [0];
        stream.write_all(b"x").and_then(|()| stream.read_exact(&mut byte)).ok().map(|()| byte[0])
    }

    #[test]
    fn bytes_go_both_ways_and_later_when_it_is_slow() {
        let proxy = Proxy::open(vec![echo()]).expect("a port is free");
        let stream = client_of(&proxy);
        assert_eq!(exchange(&stream), Some(b'x'));
        let by = Duration::from_millis(50);
        proxy.set(Traffic::Slow(by));
        let started = Instant::now();
        assert_eq!(exchange(&stream), Some(b'x'));
        assert!(started.elapsed() >= 2 * by, "there and back");
    }

    #[test]
    fn nothing_arrives_on_a_cut_link_until_it_flows_again_and_then_all_does() {
        let proxy = Proxy::open(vec![echo()]).expect("a port is free");
        let mut stream = client_of(&proxy);
        assert_eq!(exchange(&stream), Some(b'x'));
        proxy.set(Traffic::Cut);
        stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a time-out is no problem");
        assert_eq!(exchange(&stream), None);
        proxy.set(Traffic::Flows);
        stream.set_read_timeout(Some(SOON)).expect("a time-out is no problem");
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("it was kept");
        assert_eq!(byte, *b"x");
    }

    #[test]
    fn a_link_that_refuses_closes_connections_and_accepts_none() {
        let proxy = Proxy::open(vec![echo()]).expect("a port is free");
        let stream = client_of(&proxy);
        assert_eq!(exchange(&stream), Some(b'x'));
        proxy.set(Traffic::Refused);
        assert_eq!(exchange(&stream), None);
        assert_eq!(exchange(&client_of(&proxy)), None);
        proxy.set(Traffic::Flows);
        assert_eq!(exchange(&client_of(&proxy)), Some(b'x'));
    }

    #[test]
    fn a_fault_has_struck_once_something_came_upon_it() {
        for traffic in [Traffic::Slow(Duration::from_millis(1)), Traffic::Cut, Traffic::Refused] {
            let proxy = Proxy::open(vec![echo()]).expect("a port is free");
            let mut stream = client_of(&proxy);
            assert_eq!(exchange(&stream), Some(b'x'));
            proxy.set(traffic);
            assert!(!proxy.has_struck(), "{traffic:?}: nothing came yet");
            stream.write_all(b"x").expect("the proxy reads");
            let until = Instant::now() + SOON;
            while !proxy.has_struck() {
                assert!(Instant::now() < until, "{traffic:?}");
                thread::sleep(Duration::from_millis(1));
            }
            proxy.set(Traffic::Flows);
            assert!(!proxy.has_struck(), "{traffic:?}: it is over");
        }
    }

    #[test]
    fn a_connection_while_one_server_is_away_goes_to_another() {
        let away = {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            listener.local_addr().expect("bound").port()
        };
        let proxy = Proxy::open(vec![away, echo()]).expect("a port is free");
        for _ in 0..4 {
            assert_eq!(exchange(&client_of(&proxy)), Some(b'x'));
        }
    }
}
