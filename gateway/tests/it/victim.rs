//! An honest client at the door while strangers attack it: it is served in time, and the process stays small.

use crate::raw::{Door, MAX_WAIT, ask_on};
use stampede_testkit::eventually;
use std::{fs, time::Duration};
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Calls in a row. Of half as many, a single slow one would decide.
const CALLS: usize = 200;
/// Most of them that may be late: 99 of 100 are in time.
const LATE: usize = CALLS / 100;
/// Time from one call to the next.
const PACE: Duration = Duration::from_millis(5);
/// Longest latency of 99 of 100 calls: a delay that a buyer does not notice. The gateway, the services and the
/// attackers are one process here, not optimised, and other tests have the same cores: so a row that became late is
/// begun anew, and one that is in time has to come before patience ends.
const MOST_P99: Duration = Duration::from_millis(100);
/// Longest latency of any single call, on a machine that may stand still for seconds. Whoever waits for attackers who
/// are cut late, after five seconds and more, waits longer; with those who are cut sooner, and come again, more than
/// one of 100 calls is late.
const LONGEST: Duration = Duration::from_millis(4_500);
/// Most growth of the process meanwhile. The most that an attack here leaves unread are 2 MiB for each of 40 watchers,
/// in a few forms; the rest is room for the tests that run beside it in the same process. A gateway that is a process
/// of its own is held to less by the attack on a mesh.
const MOST_GROWTH_BYTES: u64 = 512 << 20;

pub struct Victim<'d> {
    door: &'d Door,
    address: [u8; 4],
    resident_before: u64,
}

impl<'d> Victim<'d> {
    /// Returns one with the address of the attackers, before they begin.
    pub async fn of(door: &'d Door) -> Self {
        Self::from_address(door, [127, 0, 0, 1]).await
    }

    /// Returns one with an address of this machine of its own.
    pub async fn from_address(door: &'d Door, address: [u8; 4]) -> Self {
        let is_up = || async {
            let answer = ask_on(door.connect_from(address).await, "GET", "/v1/events").await;
            answer.starts_with("HTTP/1.1 200").then_some(())
        };
        eventually("the gateway reaches its services", is_up).await;
        Self { door, address, resident_before: resident_bytes() }
    }

    /// Calls at a steady pace until 99 of 100 calls in a row were answered in time. None may fail.
    pub async fn is_served(&self, method: &str, path: &str) {
        let begun = Instant::now();
        let mut ticks = interval(PACE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut calls, mut late, mut most) = (0, 0, 0);
        while calls < CALLS {
            ticks.tick().await;
            let asked = Instant::now();
            let answer = ask_on(self.door.connect_from(self.address).await, method, path).await;
            let took = asked.elapsed();
            assert!(answer.starts_with("HTTP/1.1 20"), "{method} {path}: {answer}");
            assert!(took < LONGEST, "{method} {path} took {took:?}");
            (calls, late) = (calls + 1, late + usize::from(took > MOST_P99));
            if late > LATE {
                (calls, late) = (0, 0);
            }
            assert!(begun.elapsed() < MAX_WAIT, "99 of 100 calls are not answered within {MOST_P99:?}");
            most = resident_bytes().max(most);
        }
        let grown = most.saturating_sub(self.resident_before);
        assert!(grown < MOST_GROWTH_BYTES, "the process has grown by {grown} bytes");
    }
}

/// Returns the memory of this process.
fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: u64 = line.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    kib * 1024
}
