//! A Redis of a test's own, for what the shared one must not be set to.

use crate::{
    eventually,
    running::{free_address, mortal},
};
use anyhow::{Context, Result, ensure};
use stampede_vocab::{REDIS_USER, UserId, redis_rules};
use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufStream},
    net::TcpStream,
    time::timeout,
};

/// A private server, which is used as everywhere: by the product's own user. It ends when it is dropped.
#[derive(Debug)]
pub struct OwnRedis {
    child: Child,
    address: SocketAddr,
    folder: TempDir,
    password: String,
    settings: Vec<String>,
}

/// Frees what expires or is deleted beside other work.
const LAZILY: [&str; 3] = ["--lazyfree-lazy-expire", "--lazyfree-lazy-user-del", "--lazyfree-lazy-server-del"];

/// What a server had on its disk at some time.
#[derive(Debug)]
pub struct RedisCopy(TempDir);

impl OwnRedis {
    /// Starts a server that stores nothing, with these settings besides, such as `("maxmemory", "50mb")`.
    pub async fn start(settings: &[(&str, &str)]) -> Result<Self> {
        let settings = settings.iter().flat_map(|(name, value)| [format!("--{name}"), (*value).to_owned()]);
        // Like no other text, so that a log can be searched for it.
        let password = UserId::random().to_string();
        Self::launch(free_address()?, TempDir::new()?, password, settings.collect()).await
    }

    /// Starts a server that stores each command before it answers.
    pub async fn durable() -> Result<Self> {
        Self::start(&[("appendonly", "yes"), ("appendfsync", "always")]).await
    }

    async fn launch(address: SocketAddr, folder: TempDir, password: String, settings: Vec<String>) -> Result<Self> {
        let mut command = mortal("redis-server");
        command.arg("--dir").arg(folder.path()).args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.args(["--port", &address.port().to_string()]).args(LAZILY.into_iter().flat_map(|name| [name, "yes"]));
        command.args(["--user", REDIS_USER]).args(redis_rules(&password)).args(&settings);
        let child = command.stdout(Stdio::null()).spawn().context("redis-server cannot be started")?;
        let redis = Self { child, address, folder, password, settings };
        eventually("a Redis of the test's own answers", || async { is_up(address).await.then_some(()) }).await;
        Ok(redis)
    }

    /// Ends it as a power cut does, and starts it again with what it has stored.
    pub async fn restart(self) -> Result<Self> {
        let folder = copy_of(self.folder.path())?;
        self.restart_in(folder).await
    }

    /// Copies what is on its disk now.
    pub fn copy(&self) -> Result<RedisCopy> {
        Ok(RedisCopy(copy_of(self.folder.path())?))
    }

    /// Ends it, and starts it again with an old copy in place of what it has stored.
    pub async fn restart_with(self, copy: RedisCopy) -> Result<Self> {
        self.restart_in(copy.0).await
    }

    async fn restart_in(mut self, folder: TempDir) -> Result<Self> {
        self.child.kill()?;
        self.child.wait()?;
        let (password, settings) = (std::mem::take(&mut self.password), std::mem::take(&mut self.settings));
        Self::launch(self.address, folder, password, settings).await
    }

    /// `redis://user:password@host:port`, of the user that the processes have.
    pub fn url(&self) -> String {
        format!("redis://{REDIS_USER}:{}@{}", self.password, self.address)
    }

    /// `redis://host:port`, of a user who may do everything.
    pub fn admin_url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// The password of the user that the processes have.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Writes so many values of a megabyte under keys of its own.
    pub async fn fill(&self, megabytes: u32) -> Result<()> {
        for number in 0..megabytes {
            let answer = command(self.address, &format!("SETRANGE filling:{number} 1000000 x")).await?;
            ensure!(answer == ":1000001", "{answer}");
        }
        Ok(())
    }

    /// How many keys there are.
    pub async fn keys(&self) -> Result<u64> {
        let answer = command(self.address, "DBSIZE").await?;
        answer.strip_prefix(':').and_then(|count| count.parse().ok()).with_context(|| format!("no number: {answer}"))
    }

    /// Answers no client's command for so long, as a server that is busy does.
    pub async fn pause(&self, pause: Duration) -> Result<()> {
        let answer = command(self.address, &format!("CLIENT PAUSE {} ALL", pause.as_millis())).await?;
        ensure!(answer == "+OK", "{answer}");
        Ok(())
    }

    /// Closes every connection, as a server that restarts does.
    pub async fn disconnect_all(&self) -> Result<()> {
        let answer = command(self.address, "CLIENT KILL TYPE normal").await?;
        ensure!(answer.starts_with(':'), "{answer}");
        Ok(())
    }

    /// Loses everything, as a restart without a copy does.
    pub async fn empty(&self) -> Result<()> {
        let answer = command(self.address, "FLUSHALL").await?;
        ensure!(answer == "+OK", "{answer}");
        Ok(())
    }
}

impl Drop for OwnRedis {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn copy_of(folder: &Path) -> Result<TempDir> {
    let copy = TempDir::new()?;
    copy_files(folder, copy.path())?;
    Ok(copy)
}

fn copy_files(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_files(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

async fn is_up(address: SocketAddr) -> bool {
    command(address, "PING").await.is_ok_and(|answer| answer == "+PONG")
}

/// The first line that the server answers to a command.
async fn command(address: SocketAddr, command: &str) -> Result<String> {
    let exchange = async {
        let mut stream = BufStream::new(TcpStream::connect(address).await?);
        stream.write_all(format!("{command}\r\n").as_bytes()).await?;
        stream.flush().await?;
        let mut answer = String::new();
        stream.read_line(&mut answer).await?;
        Ok(answer.trim_end().to_owned())
    };
    timeout(Duration::from_secs(1), exchange).await.context("no answer")?
}
