//! One process of the mesh: started, awaited until it is ready, and killed when it is dropped.

use crate::eventually::{eventually, within_deadline};
use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    ops::Range,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Ports of test processes: below the kernel's ephemeral ports, any of which may be taken between the check and the
/// start, and beside those of the test servers.
const PORTS: Range<u32> = 10_000..20_000;

/// Number of ports that this test binary has tried.
static LOOKED_AT: AtomicU32 = AtomicU32::new(0);

/// Returns a loopback address that nobody listens on. No two calls of one test binary get the same; binaries that run
/// concurrently begin to search at different ports.
pub fn free_address() -> Result<SocketAddr> {
    let span = PORTS.end - PORTS.start;
    let first = std::process::id().wrapping_mul(97);
    for _ in 0..span {
        let step = LOOKED_AT.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + first.wrapping_add(step) % span;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(port)?));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("every port of {PORTS:?} is in use")
}

/// The folder of the built binaries.
fn binaries() -> Result<PathBuf> {
    if let Ok(folder) = env::var("STAMPEDE_TEST_BIN_DIR") {
        return Ok(folder.into());
    }
    // target/debug/deps/<test> -> target/debug
    let test = env::current_exe()?;
    Ok(test.parent().and_then(Path::parent).context("a test binary lies in target/<profile>/deps")?.to_owned())
}

/// Returns a command that runs `program`, which dies with the thread that starts it, even if that is killed.
pub fn mortal(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program).stdin(Stdio::null());
    command
}

/// A running process.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    /// Address and path that answer with 200 once it is ready.
    ready: (SocketAddr, &'static str),
    log: PathBuf,
}

impl Running {
    /// Starts `stampede serve <name>` with exactly these settings. It is ready once the address answers the path with
    /// 200.
    pub fn launch(
        name: &str,
        settings: &BTreeMap<String, String>,
        ready: (SocketAddr, &'static str),
        log: PathBuf,
    ) -> Result<Self> {
        let binary = binaries()?.join("stampede");
        let output = fs::OpenOptions::new().create(true).append(true).open(&log)?;
        let mut command = mortal(&binary);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("STAMPEDE_")) {
            command.env_remove(name);
        }
        let child = command
            .args(["serve", name])
            .envs(settings)
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {}: is it built?", binary.display()))?;
        Ok(Self { name: name.to_owned(), child, ready, log })
    }

    /// Whether it is ready now.
    pub async fn is_ready(&self) -> bool {
        answers_ok(self.ready.0, self.ready.1).await
    }

    /// Waits until it is ready. Fails, with the end of its log, if it ends before or is not ready in half a minute.
    pub async fn wait_until_ready(&mut self) -> Result<()> {
        let (address, path) = self.ready;
        let child = &mut self.child;
        let came = within_deadline(|| {
            let exited = child.try_wait().ok().flatten();
            async move {
                match exited {
                    Some(status) => Some(Some(status)),
                    None => answers_ok(address, path).await.then_some(None),
                }
            }
        })
        .await;
        match came {
            Some(None) => Ok(()),
            Some(Some(status)) => bail!("it ended with {status}:\n{}", self.log_tail()),
            None => bail!("{address}{path} has not answered with 200:\n{}", self.log_tail()),
        }
    }

    /// Kills it with SIGKILL, as a power cut would.
    pub fn kill_9(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Freezes it: the kernel still accepts connections for it, and nobody answers.
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

    /// Stops it with SIGTERM, and returns its exit status.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        let what = format!("{} stops after SIGTERM", self.name);
        let child = &mut self.child;
        Ok(eventually(&what, || std::future::ready(child.try_wait().ok().flatten())).await)
    }

    /// Waits until it has ended on its own, and returns its exit status.
    pub async fn ended(&mut self) -> ExitStatus {
        let what = format!("{} ends on its own", self.name);
        let child = &mut self.child;
        eventually(&what, || std::future::ready(child.try_wait().ok().flatten())).await
    }

    /// Returns its log.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Returns the end of its log.
    pub fn log_tail(&self) -> String {
        let text = self.log();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the last lines of {} ---\n{}", self.name, self.log_tail());
        }
    }
}

async fn answers_ok(address: SocketAddr, path: &str) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.ok()?;
        Some(&head == b"HTTP/1.1 200")
    };
    tokio::time::timeout(std::time::Duration::from_secs(1), ask).await.ok().flatten().unwrap_or(false)
}
