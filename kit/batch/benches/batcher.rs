//! What a batcher adds to a call: `cargo bench -p stampede-batch`.

use divan::{Bencher, counter::ItemsCount};
use stampede_batch::{BatchConfig, Batcher};
use std::future::ready;

fn main() {
    divan::main();
}

/// So many calls at a time, each of which waits for its own answer.
#[divan::bench(args = [1, 32, 256])]
fn calls(bencher: Bencher<'_, '_>, calls: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime needs nothing");
    let config = BatchConfig { name: "bench", max_batch: 256, max_in_flight: 1, max_queued: 1_024, must_run: false };
    let batcher = runtime.block_on(async { Batcher::new(config, ready::<Vec<usize>>) });
    bencher.counter(ItemsCount::new(calls)).bench_local(|| {
        let all = futures_util::future::join_all((0..calls).map(|call| batcher.call(call)));
        runtime.block_on(all)
    });
}
