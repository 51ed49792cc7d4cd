//! How many rows one read asks for: fewer over a link that is too slow for all of them.

/// Most rows after the cursor, and most rows from gaps, in one read.
const ROUND_ROWS: u32 = 1_000;
/// Most waiting messages that are read again in one read.
const ROUND_RETRIES: usize = 500;
/// How many full reads in a row must end in time before the next ones ask for twice as many rows.
///
/// A read that ends too late costs the progress since the last floors. With some good reads before each attempt the
/// floors go up, however slow the link is.
const GOOD_READS: u32 = 4;

/// The size of the next read.
#[derive(Debug)]
pub(super) struct PageSize {
    rows: u32,
    /// Full reads in time since it last changed.
    good: u32,
}

impl Default for PageSize {
    fn default() -> Self {
        Self { rows: ROUND_ROWS, good: 0 }
    }
}

impl PageSize {
    /// Most rows after the cursor, and most rows from gaps.
    pub(super) fn rows(&self) -> u32 {
        self.rows
    }

    /// Most waiting messages that are read again.
    pub(super) fn retries(&self) -> usize {
        ROUND_RETRIES.min(self.rows as usize)
    }

    /// Halves it, after a read that did not end in time.
    pub(super) fn shrink(&mut self) {
        *self = Self { rows: (self.rows / 2).max(1), good: 0 };
    }

    /// Counts a full read in time, and doubles the size after some of them.
    pub(super) fn grow(&mut self) {
        self.good += 1;
        if self.good >= GOOD_READS {
            *self = Self { rows: (self.rows * 2).min(ROUND_ROWS), good: 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grow_once(page: &mut PageSize) {
        for _ in 0..GOOD_READS {
            page.grow();
        }
    }

    #[test]
    fn it_shrinks_to_one_row_and_grows_back_to_all() {
        let mut page = PageSize::default();
        let mut sizes = vec![page.rows()];
        for _ in 0..11 {
            page.shrink();
            sizes.push(page.rows());
        }
        assert_eq!(sizes, [1_000, 500, 250, 125, 62, 31, 15, 7, 3, 1, 1, 1]);
        assert_eq!(page.retries(), 1);
        for size in [2, 4, 8, 16, 32, 64, 128, 256, 512, 1_000, 1_000] {
            grow_once(&mut page);
            assert_eq!(page.rows(), size);
        }
        assert_eq!(page.retries(), ROUND_RETRIES);
    }

    #[test]
    fn one_good_read_does_not_bring_back_the_size_that_was_too_large() {
        let mut page = PageSize::default();
        page.shrink();
        for read in 1..GOOD_READS {
            page.grow();
            assert_eq!(page.rows(), 500, "after {read} good reads");
        }
        // The count begins anew after a failure.
        page.shrink();
        page.grow();
        assert_eq!(page.rows(), 250);
        grow_once(&mut page);
        assert_eq!(page.rows(), 500);
    }
}
