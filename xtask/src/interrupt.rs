//! The contributor's wish to stop, which may come at any time: Ctrl-C, SIGTERM or SIGHUP.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Signals are a matter of the whole process, and so is what is known of them.
static ASKED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From here on the first signal is a wish to stop that those who wait look for; the second one ends this process at once.
pub fn listen() -> anyhow::Result<Arc<AtomicBool>> {
    if let Some(asked) = ASKED.get() {
        return Ok(Arc::clone(asked));
    }
    let asked = Arc::clone(ASKED.get_or_init(Arc::default));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&asked))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&asked)))
            .context("cannot handle signals")?;
    }
    Ok(asked)
}

/// Fails if the contributor has asked to stop.
pub fn check() -> anyhow::Result<()> {
    if ASKED.get().is_some_and(|asked| asked.load(Ordering::Relaxed)) {
        bail!("interrupted");
    }
    Ok(())
}
