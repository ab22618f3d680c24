//! What one receiver should have seen: every number from 1 on once, in order.
//!
//! Sixteen bytes: the highest number so far, and which of the 64 up to it have come. What comes later than that cannot
//! be told from a repetition and is counted apart.

/// Faults over any number of streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Did not come.
    pub lost: u64,
    /// Came again.
    pub duplicated: u64,
    /// Came after a later one.
    pub reordered: u64,
    /// Came more than 64 places late: either of the two above, and if it is new, then it is still among the lost.
    pub unplaced: u64,
    /// Payloads that nobody of this run sent to this receiver.
    pub strange: u64,
}

/// One receiver's stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stream {
    /// Bit n: `highest - n` came.
    window: u64,
    highest: u32,
}

impl Stream {
    /// Takes a number and returns whether it is here for the first time.
    pub fn receive(&mut self, number: u32, faults: &mut Faults) -> bool {
        if number == 0 {
            faults.strange += 1;
            return false;
        }
        if number > self.highest {
            let step = number - self.highest;
            faults.lost += u64::from(step - 1);
            self.window = self.window.checked_shl(step).unwrap_or(0) | 1;
            self.highest = number;
            return true;
        }
        let Some(bit) = 1_u64.checked_shl(self.highest - number) else {
            faults.unplaced += 1;
            return false;
        };
        if self.window & bit != 0 {
            faults.duplicated += 1;
            return false;
        }
        self.window |= bit;
        faults.lost -= 1;
        faults.reordered += 1;
        true
    }

    /// The numbers up to `last` are all that there were.
    pub fn finish(&self, last: u32, faults: &mut Faults) {
        faults.lost += u64::from(last.saturating_sub(self.highest));
    }
}

impl Faults {
    /// Whether there are any.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }

    /// Adds those of other streams.
    pub fn add(&mut self, other: &Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.unplaced += other.unplaced;
        self.strange += other.strange;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults_of(numbers: impl IntoIterator<Item = u32>, last: u32) -> Faults {
        let (mut stream, mut faults) = (Stream::default(), Faults::default());
        for number in numbers {
            stream.receive(number, &mut faults);
        }
        stream.finish(last, &mut faults);
        faults
    }

    const NONE: Faults = Faults { lost: 0, duplicated: 0, reordered: 0, unplaced: 0, strange: 0 };

    #[test]
    fn gaps_repetitions_and_late_arrivals_are_told_apart() {
        assert_eq!(faults_of(1..=500, 500), NONE);
        assert_eq!(faults_of([], 3), Faults { lost: 3, ..NONE });
        assert_eq!(faults_of([2], 3), Faults { lost: 2, ..NONE });
        assert_eq!(faults_of([1, 3], 3), Faults { lost: 1, ..NONE });
        assert_eq!(faults_of([1, 1, 2, 1], 2), Faults { duplicated: 2, ..NONE });
        assert_eq!(faults_of([2, 1, 3], 3), Faults { reordered: 1, ..NONE });
        assert_eq!(faults_of([1, 3, 2, 2], 3), Faults { reordered: 1, duplicated: 1, ..NONE });
        assert_eq!(faults_of([0, 1], 1), Faults { strange: 1, ..NONE });
    }

    #[test]
    fn the_window_is_exact_at_its_edge_and_honest_past_it() {
        assert_eq!(faults_of([65, 2], 65), Faults { lost: 63, reordered: 1, ..NONE });
        assert_eq!(faults_of([65, 1], 65), Faults { lost: 64, unplaced: 1, ..NONE });
        assert_eq!(faults_of([1, 1000, 999, 1], 1000).unplaced, 1);
        assert_eq!(faults_of([1, 64, 1], 64), Faults { lost: 62, duplicated: 1, ..NONE });
    }
}
