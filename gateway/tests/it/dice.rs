//! Draws of a fuzzer. The same seed draws the same cases: `STAMPEDE_TEST_SEED` sets it, and `STAMPEDE_TEST_FUZZ_S` how
//! many seconds the fuzzing of a whole `cargo test` may take, a minute without it.

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::Value;
use std::{
    env,
    str::FromStr,
    time::{Duration, Instant},
};

/// Tests that share the time: one sends requests, the other bytes. They run side by side, so all else waits for half of
/// it.
const FUZZERS: u32 = 2;
const FUZZ_S: u64 = 60;

/// Texts that have broken a parser somewhere.
const ODD_TEXTS: [&str; 24] = [
    "",
    " ",
    ".",
    "..",
    "%",
    "%FF",
    "+",
    "null",
    "true",
    "-1",
    "1e400",
    "0x10",
    "NaN",
    "9223372036854775808",
    "2026-02-30T25:61:61Z",
    "2026-01-01T00:00:00Z",
    "evt_6zr8ffxwndaart51cqabf0xqbp",
    "a/b",
    "a:pay",
    "{order_id}",
    "\0",
    "\r\n",
    "é",
    "𝄞",
];

/// Numbers at the ends of what types can hold.
const ODD_NUMBERS: [&str; 10] = [
    "0",
    "-1",
    "1.5",
    "1e3",
    "1e308",
    "2147483648",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "123456789012345678901234567890",
];

/// The draws of one case.
pub struct Dice(StdRng);

impl Dice {
    pub fn of(seed: u64, case: u64) -> Self {
        Self(StdRng::seed_from_u64(seed.wrapping_add(case.wrapping_mul(0x9e37_79b9_7f4a_7c15))))
    }

    /// Returns a number below `end`, which is not zero.
    pub fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end)
    }

    pub fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    pub fn byte(&mut self) -> u8 {
        self.0.random_range(0..=u8::MAX)
    }

    pub fn text(&mut self) -> String {
        match self.below(40) {
            0 => "x".repeat(5_000),
            1..=15 => {
                let letters = self.below(30);
                (0..letters).map(|_| char::from(b' ' + self.byte() % 95)).collect()
            }
            _ => (*self.pick(&ODD_TEXTS)).to_owned(),
        }
    }

    pub fn number(&mut self) -> Value {
        let number = *self.pick(&ODD_NUMBERS);
        serde_json::from_str(number).unwrap()
    }

    /// Returns any JSON, not deeper than this.
    pub fn json(&mut self, depth: usize) -> Value {
        match self.below(if depth == 0 { 4 } else { 6 }) {
            0 => Value::Null,
            1 => Value::Bool(self.one_in(2)),
            2 => self.number(),
            3 => Value::String(self.text()),
            4 => (0..self.below(4)).map(|_| self.json(depth - 1)).collect(),
            _ => Value::Object((0..self.below(4)).map(|_| (self.text(), self.json(depth - 1))).collect()),
        }
    }

    /// Damages some bytes: changes, cuts out, doubles, or puts one of these pieces in.
    pub fn damage(&mut self, bytes: &mut Vec<u8>, pieces: &[&[u8]]) {
        for _ in 0..=self.below(4) {
            let (from, to) = (self.below(bytes.len() + 1), self.below(bytes.len() + 1));
            let (from, to) = (from.min(to), from.max(to));
            match self.below(5) {
                0 => drop(bytes.drain(from..to)),
                1 => bytes.extend_from_within(from..to),
                2 => drop(bytes.splice(from..from, self.pick(pieces).iter().copied())),
                3 => bytes.truncate(to),
                _ if from < bytes.len() => bytes[from] = self.byte(),
                _ => bytes.push(self.byte()),
            }
            // Doubled a few times it is still small.
            bytes.truncate(100_000);
        }
    }
}

/// Returns the seed of this run, which a failure shows.
pub fn seed() -> u64 {
    let seed = from_environment("STAMPEDE_TEST_SEED").unwrap_or_else(|| u64::from(rand::random::<u32>()));
    println!("STAMPEDE_TEST_SEED={seed}");
    seed
}

/// Returns when a fuzzer has to stop.
pub fn end() -> Instant {
    let seconds = from_environment("STAMPEDE_TEST_FUZZ_S").unwrap_or(FUZZ_S);
    Instant::now() + Duration::from_secs(seconds) / FUZZERS
}

fn from_environment<T: FromStr>(name: &str) -> Option<T> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}
