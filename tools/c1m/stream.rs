//! Checks one stream: a receiver expects every sequence number from 1 once, in order.
//!
//! Sixteen bytes hold the highest number so far and which of the 64 numbers up to it have arrived. A message that
//! arrives later than that may be a duplicate or not; it is counted as unclassified.

/// Number of faults in one or more streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Messages that did not arrive.
    pub lost: u64,
    /// Messages that arrived more than once.
    pub duplicated: u64,
    /// Messages that arrived after a later one.
    pub reordered: u64,
    /// Messages that arrived more than 64 messages late: duplicated, or reordered and then still counted as lost.
    pub unclassified: u64,
    /// Payloads that this run did not send to this receiver.
    pub unexpected: u64,
}

/// The stream of one receiver.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stream {
    /// Bit n is set if `highest - n` has arrived.
    window: u64,
    highest: u32,
}

impl Stream {
    /// Records a sequence number; returns whether it is known to be new.
    pub fn receive(&mut self, number: u32, faults: &mut Faults) -> bool {
        if number == 0 {
            faults.unexpected += 1;
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
            faults.unclassified += 1;
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

    /// Ends the stream, whose last sequence number is `last`.
    pub fn finish(&self, last: u32, faults: &mut Faults) {
        faults.lost += u64::from(last.saturating_sub(self.highest));
    }
}

impl Faults {
    /// Whether there are any faults.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }

    /// Adds the faults of other streams.
    pub fn add(&mut self, other: &Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.unclassified += other.unclassified;
        self.unexpected += other.unexpected;
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

    const NONE: Faults =
        Faults { lost: 0, duplicated: 0, reordered: 0, unclassified: 0, unexpected: 0 };

    #[test]
    fn gaps_duplicates_and_late_messages_are_distinguished() {
        assert_eq!(faults_of(1..=500, 500), NONE);
        assert_eq!(faults_of([], 3), Faults { lost: 3, ..NONE });
        assert_eq!(faults_of([2], 3), Faults { lost: 2, ..NONE });
        assert_eq!(faults_of([1, 3], 3), Faults { lost: 1, ..NONE });
        assert_eq!(faults_of([1, 1, 2, 1], 2), Faults { duplicated: 2, ..NONE });
        assert_eq!(faults_of([2, 1, 3], 3), Faults { reordered: 1, ..NONE });
        assert_eq!(faults_of([1, 3, 2, 2], 3), Faults { reordered: 1, duplicated: 1, ..NONE });
        assert_eq!(faults_of([0, 1], 1), Faults { unexpected: 1, ..NONE });
    }

    #[test]
    fn a_message_is_classified_up_to_the_edge_of_the_window() {
        assert_eq!(faults_of([65, 2], 65), Faults { lost: 63, reordered: 1, ..NONE });
        assert_eq!(faults_of([65, 1], 65), Faults { lost: 64, unclassified: 1, ..NONE });
        assert_eq!(faults_of([1, 1000, 999, 1], 1000).unclassified, 1);
        assert_eq!(faults_of([1, 64, 1], 64), Faults { lost: 62, duplicated: 1, ..NONE });
    }
}
