//! A Redis of a test's own, for settings that the shared one must not have.

use crate::{
    eventually,
    running::{free_address, mortal},
};
use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use stampede_vocab::{REDIS_USER, UserId, redis_rules};
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::LazyLock,
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream},
    net::TcpStream,
    time::{sleep, timeout},
};

/// Longest wait for an answer: the whole machine may stand still for some seconds.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
/// The same while it starts.
const UP_WITHIN: Duration = Duration::from_secs(1);
/// Bytes of the first lost command that stay on the disk: fewer than any command has.
const TORN: u64 = 7;

/// Password of the processes' user on every private server of a test process, so that a replica can take the place of
/// its master.
static PASSWORD: LazyLock<String> = LazyLock::new(|| UserId::random().to_string());

/// A private server, whose URL is that of the product's own user. It ends when it is dropped.
#[derive(Debug)]
pub struct OwnRedis {
    child: Child,
    address: SocketAddr,
    folder: TempDir,
    settings: Vec<String>,
}

/// Frees expired and deleted keys in the background.
const LAZILY: [&str; 3] = ["--lazyfree-lazy-expire", "--lazyfree-lazy-user-del", "--lazyfree-lazy-server-del"];

/// Makes reading the data last: a pause after each key, in microseconds, and answers to clients after each kilobyte.
const SLOWLY: [&str; 4] = ["--key-load-delay", "20000", "--loading-process-events-interval-bytes", "1024"];
/// Stores keys whose pauses take a minute, longer than a test waits. Each is larger than that kilobyte.
const PAUSES: &str = "EVAL \"for i = 1, 3000 do redis.call('SET', 'pause:' .. i, string.rep('x', 2000)) end \
                      return redis.status_reply('OK')\" 0";

/// A copy of a server's disk at some time.
#[derive(Debug)]
pub struct RedisCopy(TempDir);

impl OwnRedis {
    /// Starts a server that stores nothing, with these settings besides, such as `("maxmemory", "50mb")`.
    pub async fn start(settings: &[(&str, &str)]) -> Result<Self> {
        let settings = settings.iter().flat_map(|(name, value)| [format!("--{name}"), (*value).to_owned()]);
        // Unique, so that a log can be searched for it.
        Self::launch(free_address()?, TempDir::new()?, settings.collect()).await
    }

    /// Starts a server that stores each command before it answers.
    pub async fn durable() -> Result<Self> {
        Self::start(&[("appendonly", "yes"), ("appendfsync", "always")]).await
    }

    async fn launch(address: SocketAddr, folder: TempDir, settings: Vec<String>) -> Result<Self> {
        let redis = Self::spawn(address, folder, settings, &[])?;
        eventually("a Redis of the test's own answers", || async { is_up(address).await.then_some(()) }).await;
        Ok(redis)
    }

    /// Starts the process, with some arguments for this time only.
    fn spawn(address: SocketAddr, folder: TempDir, settings: Vec<String>, once: &[&str]) -> Result<Self> {
        let mut command = mortal("redis-server");
        command.arg("--dir").arg(folder.path()).args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.args(["--port", &address.port().to_string()]).args(LAZILY.into_iter().flat_map(|name| [name, "yes"]));
        // A replica is synchronized at once, not after five seconds of waiting for others.
        command.args(["--repl-diskless-sync-delay", "0"]);
        command.args(["--user", REDIS_USER]).args(redis_rules(&PASSWORD)).args(&settings).args(once);
        let child = command.stdout(Stdio::null()).spawn().context("redis-server cannot be started")?;
        Ok(Self { child, address, folder, settings })
    }

    /// Kills it as a power cut does, and starts it again with its data on the disk.
    pub async fn restart(self) -> Result<Self> {
        let folder = copy_of(self.folder.path())?;
        self.restart_in(folder).await
    }

    /// Copies its disk.
    pub fn copy(&self) -> Result<RedisCopy> {
        Ok(RedisCopy(copy_of(self.folder.path())?))
    }

    /// Kills it, and starts it again with an earlier copy in place of its data.
    pub async fn restart_with(self, copy: RedisCopy) -> Result<Self> {
        self.restart_in(copy.0).await
    }

    /// Runs for so long, is killed as by a power cut, and starts again without the writes of that time: its files end
    /// in the middle of the first lost command. Fails if there was none.
    pub async fn restart_without_the_last(mut self, lost: Duration) -> Result<Self> {
        let sizes = sizes_of(self.folder.path())?;
        sleep(lost).await;
        self.end()?;
        let folder = copy_of(self.folder.path())?;
        let mut is_torn = false;
        for (file, size) in sizes {
            is_torn |= cut(&folder.path().join(file), size + TORN)?;
        }
        ensure!(is_torn, "nothing was stored in the last {lost:?}");
        self.restart_in(folder).await
    }

    /// Stops it in order, which loses nothing, and starts it again: it answers LOADING to whatever needs its data until
    /// [`Self::finish_loading`]. Not for a server with `appendonly`, which answers nobody for a thousand commands on
    /// end while it reads them.
    pub async fn restart_loading(mut self) -> Result<Self> {
        self.obey("CONFIG SET rdbcompression no").await?;
        self.obey(PAUSES).await?;
        // It answers only what it refuses.
        let refusal = command(self.address, "SHUTDOWN SAVE").await?;
        ensure!(refusal.is_empty(), "{refusal}");
        self.child.wait()?;
        let folder = copy_of(self.folder.path())?;
        let redis = Self::spawn(self.address, folder, std::mem::take(&mut self.settings), &SLOWLY)?;
        eventually("it answers LOADING", || async { redis.is_loading().await.then_some(()) }).await;
        Ok(redis)
    }

    /// Returns whether it answers LOADING, as a server that is reading its data.
    pub async fn is_loading(&self) -> bool {
        command(self.address, "PING").await.is_ok_and(|answer| answer.starts_with("-LOADING "))
    }

    /// Reads the rest of its data without pauses.
    pub async fn finish_loading(&self) -> Result<()> {
        self.obey("CONFIG SET key-load-delay 0").await?;
        eventually("it has read its data", || async { is_up(self.address).await.then_some(()) }).await;
        Ok(())
    }

    async fn restart_in(mut self, folder: TempDir) -> Result<Self> {
        self.end()?;
        Self::launch(self.address, folder, std::mem::take(&mut self.settings)).await
    }

    fn end(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Makes it a replica of `master`, and waits until it is in sync. It takes no writes from then on; existing
    /// connections stay.
    pub async fn follow(&self, master: &Self) -> Result<()> {
        let order = format!("REPLICAOF {} {}", master.address.ip(), master.address.port());
        self.obey(&order).await?;
        eventually("the replica has what its master has", || async {
            let info = text(self.address, "INFO replication").await.ok()?;
            info.lines().any(|line| line == "master_link_status:up").then_some(())
        })
        .await;
        Ok(())
    }

    /// Makes it a master again, which takes writes.
    pub async fn promote(&self) -> Result<()> {
        self.obey("REPLICAOF NO ONE").await
    }

    /// Returns its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `redis://user:password@host:port`, of the user that the processes have.
    pub fn url(&self) -> String {
        format!("redis://{REDIS_USER}:{}@{}", *PASSWORD, self.address)
    }

    /// `redis://host:port`, of an administrator.
    pub fn admin_url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// The password of the user that the processes have.
    pub fn password(&self) -> &str {
        &PASSWORD
    }

    /// Writes so many values of a megabyte under keys of its own.
    pub async fn fill(&self, megabytes: u32) -> Result<()> {
        for number in 0..megabytes {
            let answer = command(self.address, &format!("SETRANGE filling:{number} 1000000 x")).await?;
            ensure!(answer == ":1000001", "{answer}");
        }
        Ok(())
    }

    /// Returns the number of keys.
    pub async fn keys(&self) -> Result<u64> {
        let answer = command(self.address, "DBSIZE").await?;
        answer.strip_prefix(':').and_then(|count| count.parse().ok()).with_context(|| format!("no number: {answer}"))
    }

    /// Answers no client's command for so long, as a busy server would.
    pub async fn pause(&self, pause: Duration) -> Result<()> {
        self.obey(&format!("CLIENT PAUSE {} ALL", pause.as_millis())).await
    }

    /// Freezes it, as a paused machine would: the kernel still accepts connections, and nobody answers.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Continues it.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)?)
    }

    /// Closes every connection, as a server that restarts does.
    pub async fn disconnect_all(&self) -> Result<()> {
        let answer = command(self.address, "CLIENT KILL TYPE normal").await?;
        ensure!(answer.starts_with(':'), "{answer}");
        Ok(())
    }

    /// Closes every connection that is subscribed to a channel.
    pub async fn disconnect_subscribers(&self) -> Result<()> {
        let answer = command(self.address, "CLIENT KILL TYPE pubsub").await?;
        ensure!(answer.starts_with(':'), "{answer}");
        Ok(())
    }

    /// Publishes no expired keys any more, as a server that was set up anew without the setting.
    pub async fn stop_notifying(&self) -> Result<()> {
        self.obey("CONFIG SET notify-keyspace-events \"\"").await
    }

    /// Returns how often a command has run so far.
    pub async fn calls(&self, name: &str) -> Result<u64> {
        let info = text(self.address, "INFO commandstats").await?;
        let begin = format!("cmdstat_{name}:calls=");
        let calls = info.lines().find_map(|line| line.strip_prefix(&begin)?.split(',').next()?.parse().ok());
        Ok(calls.unwrap_or(0))
    }

    /// Deletes everything, as a restart without a copy does.
    pub async fn empty(&self) -> Result<()> {
        self.obey("FLUSHALL").await
    }

    /// Keeps it busy with a script that has no end; it obeys `SCRIPT KILL`. It refuses other commands as BUSY once that
    /// has lasted for its `lua-time-limit`.
    pub async fn run_without_end(&self) -> Result<()> {
        let mut stream = TcpStream::connect(self.address).await?;
        // There is no answer to wait for.
        stream.write_all(b"EVAL \"while true do end\" 0\r\n").await?;
        eventually("it is busy", || async { is_busy(self.address).await.then_some(()) }).await;
        Ok(())
    }

    /// Sends a command as the administrator, such as `CONFIG SET maxmemory 1`. Fails unless it answers OK within ten
    /// seconds.
    pub async fn obey(&self, order: &str) -> Result<()> {
        let answer = command(self.address, order).await?;
        ensure!(answer.starts_with("+OK"), "{order}: {answer}");
        Ok(())
    }
}

impl Drop for OwnRedis {
    fn drop(&mut self) {
        // It may have ended already, which is fine.
        let _ = self.end();
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

/// The files in a folder and in those in it, by their paths from there, with their sizes in bytes.
fn sizes_of(folder: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut sizes = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                sizes.push((entry.path().strip_prefix(folder)?.to_owned(), entry.metadata()?.len()));
            }
        }
    }
    Ok(sizes)
}

/// Truncates a file to so many bytes. Returns whether it had more.
fn cut(file: &Path, size: u64) -> Result<bool> {
    let file = fs::OpenOptions::new().write(true).open(file)?;
    let is_longer = file.metadata()?.len() > size;
    if is_longer {
        file.set_len(size)?;
    }
    Ok(is_longer)
}

async fn is_up(address: SocketAddr) -> bool {
    timeout(UP_WITHIN, command(address, "PING")).await.is_ok_and(|answer| answer.is_ok_and(|answer| answer == "+PONG"))
}

/// Whether it refuses commands because a script runs for long.
async fn is_busy(address: SocketAddr) -> bool {
    command(address, "PING").await.is_ok_and(|answer| answer.starts_with("-BUSY"))
}

/// Returns the first line of the server's answer to a command.
async fn command(address: SocketAddr, command: &str) -> Result<String> {
    let exchange = async { Ok(ask(address, command).await?.1) };
    timeout(ANSWERED_WITHIN, exchange).await.context("no answer")?
}

/// Returns the text of the server's answer to a command, of lines that end with a line feed.
async fn text(address: SocketAddr, command: &str) -> Result<String> {
    let exchange = async {
        let (mut stream, head) = ask(address, command).await?;
        let length: usize = head.strip_prefix('$').with_context(|| format!("no text: {head}"))?.parse()?;
        let mut bytes = vec![0; length];
        stream.read_exact(&mut bytes).await?;
        Ok(String::from_utf8(bytes)?.replace('\r', ""))
    };
    timeout(ANSWERED_WITHIN, exchange).await.context("no answer")?
}

/// Sends a command on a connection of its own. Returns the connection after the first line of the answer, and that
/// line.
async fn ask(address: SocketAddr, command: &str) -> Result<(BufStream<TcpStream>, String)> {
    let mut stream = BufStream::new(TcpStream::connect(address).await?);
    stream.write_all(format!("{command}\r\n").as_bytes()).await?;
    stream.flush().await?;
    let mut answer = String::new();
    stream.read_line(&mut answer).await?;
    Ok((stream, answer.trim_end().to_owned()))
}
