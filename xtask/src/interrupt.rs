//! Interrupts by the contributor: Ctrl-C, SIGTERM or SIGHUP.

use anyhow::{Context, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

/// Signals belong to the whole process, so their flag is a static.
static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Registers the signals: the first sets a flag, which every wait checks; the second ends this process at once.
pub fn listen() -> anyhow::Result<Arc<AtomicBool>> {
    if let Some(stop) = STOP.get() {
        return Ok(Arc::clone(stop));
    }
    let stop = Arc::clone(STOP.get_or_init(Arc::default));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .context("cannot handle signals")?;
    }
    Ok(stop)
}

/// Fails if the contributor has interrupted.
pub fn check() -> anyhow::Result<()> {
    if STOP.get().is_some_and(|stop| stop.load(Ordering::Relaxed)) {
        bail!("interrupted");
    }
    Ok(())
}
