//! A virtual address that one server takes over from another, like that of a master with replicas: clients keep it, and
//! find another server behind it.

use anyhow::Result;
use std::net::{Ipv4Addr, SocketAddr};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// An address that forwards to a server. Its connections end when it is dropped.
#[derive(Debug)]
pub struct FloatingAddress {
    address: SocketAddr,
    leads_to: watch::Sender<SocketAddr>,
    accepting: JoinHandle<()>,
}

impl FloatingAddress {
    /// Forwards to this server. Needs a tokio runtime. Fails if no port is free.
    pub async fn leading_to(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let leads_to = watch::Sender::new(server);
        let accepting = tokio::spawn(accept_all(listener, leads_to.subscribe()));
        Ok(Self { address, leads_to, accepting })
    }

    /// Returns the address that clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Forwards new connections to another server. Existing ones stay with theirs, as long as it keeps them.
    pub fn move_to(&self, server: SocketAddr) {
        self.leads_to.send_replace(server);
    }
}

impl Drop for FloatingAddress {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept_all(listener: TcpListener, leads_to: watch::Receiver<SocketAddr>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let server = *leads_to.borrow();
        connections.spawn(pass_on(client, server));
        while connections.try_join_next().is_some() {}
    }
}

/// Copies bytes until one side closes. Closes the connection of a client at once if no server listens.
async fn pass_on(mut client: TcpStream, server: SocketAddr) {
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    // Small commands and answers would wait for one another otherwise.
    if client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).is_ok() {
        // A side that breaks is expected in a failover.
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
}
