//! A minimal TCP balancer: it hands each new connection to the next ready gateway, copies bytes, and knows nothing of
//! HTTP.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

/// Interval of the health checks of a gateway: several fit into its drain delay.
const CHECK_PAUSE: Duration = Duration::from_millis(50);
/// Longest wait for an answer of an admin port. A process that has ended is known at once, and if this machine stands
/// still, no gateway is taken for one.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// A balancer. Its connections end when it is dropped.
pub struct Balancer {
    address: SocketAddr,
    gateways: Arc<[Gateway]>,
    _tasks: JoinSet<()>,
}

#[derive(Clone)]
struct Gateway {
    address: SocketAddr,
    admin: SocketAddr,
    is_ready: Arc<AtomicBool>,
}

impl Balancer {
    /// Balances over gateways, each by its address and its admin address.
    pub async fn over(gateways: impl IntoIterator<Item = (SocketAddr, SocketAddr)>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let ready = || Arc::new(AtomicBool::new(true));
        let gateways = gateways.into_iter().map(|(address, admin)| Gateway { address, admin, is_ready: ready() });
        let gateways: Arc<[Gateway]> = gateways.collect();
        let mut tasks = JoinSet::new();
        for gateway in gateways.iter() {
            tasks.spawn(gateway.clone().look());
        }
        tasks.spawn(accept_all(listener, gateways.clone()));
        Self { address, gateways, _tasks: tasks }
    }

    /// Whether new connections may be handed to the gateway at this address.
    pub fn leads_to(&self, address: SocketAddr) -> bool {
        self.gateways.iter().any(|gateway| gateway.address == address && gateway.is_ready.load(Ordering::Relaxed))
    }

    /// `http://host:port` of all gateways.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Gateway {
    async fn look(self) {
        loop {
            let answer = get(self.admin, "/readyz").await;
            let is_ready = answer.is_some_and(|answer| answer.split(' ').nth(1) == Some("200"));
            self.is_ready.store(is_ready, Ordering::Relaxed);
            sleep(CHECK_PAUSE).await;
        }
    }
}

async fn accept_all(listener: TcpListener, gateways: Arc<[Gateway]>) {
    let mut connections = JoinSet::new();
    let mut turn = 0_usize;
    while let Ok((client, _)) = listener.accept().await {
        turn = turn.wrapping_add(1);
        connections.spawn(carry(client, gateways.clone(), turn));
        while connections.try_join_next().is_some() {}
    }
}

/// Forwards a connection until one side ends it. A gateway that does not accept it is skipped: nothing was sent so far.
async fn carry(mut client: TcpStream, gateways: Arc<[Gateway]>, turn: usize) {
    let (before, from) = gateways.split_at(turn % gateways.len());
    for gateway in from.iter().chain(before).filter(|gateway| gateway.is_ready.load(Ordering::Relaxed)) {
        let Ok(mut server) = TcpStream::connect(gateway.address).await else { continue };
        // Small requests would wait for one another else.
        if client.set_nodelay(true).is_ok() && server.set_nodelay(true).is_ok() {
            // However it ends, both sides see that it has.
            drop(copy_bidirectional(&mut client, &mut server).await);
        }
        return;
    }
}

/// Returns the whole answer to a GET on a connection of its own; `None` if there is none in time.
pub async fn get(address: SocketAddr, path: &str) -> Option<String> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        // HTTP/1.0, so that the answer is not chunked.
        let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    };
    timeout(ANSWER_DEADLINE, ask).await.ok().flatten()
}
