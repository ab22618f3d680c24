//! Faults of a peer after the handshake.

/// A violation of RFC 6455 or of a limit. The connection fails: a close frame with [`Fault::close_code`] is sent, then
/// it is closed (RFC 6455 7.1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A reserved bit is set and no extension was negotiated (RFC 6455 5.2).
    ReservedBits,
    /// An opcode that RFC 6455 5.2 reserves.
    OpCodeReserved,
    /// A control frame without FIN (RFC 6455 5.5).
    ControlFragmented,
    /// A control frame with more than 125 bytes (RFC 6455 5.5).
    ControlTooLarge,
    /// A length in more bytes than it needs (RFC 6455 5.2).
    LengthNotMinimal,
    /// A 64-bit length with its top bit set (RFC 6455 5.2).
    LengthOutOfRange,
    /// A client's frame without a mask (RFC 6455 5.1).
    MaskMissing,
    /// A server's frame with a mask (RFC 6455 5.1).
    MaskUnexpected,
    /// A continuation while no message is in progress (RFC 6455 5.4).
    ContinuationUnexpected,
    /// A new message while one is in progress (RFC 6455 5.4).
    MessageInterrupted,
    /// A close frame of one byte (RFC 6455 5.5.1).
    CloseTruncated,
    /// A close code that must not be sent (RFC 6455 7.4).
    CloseCodeInvalid,
    /// Text, or the reason of a close, that is not UTF-8 (RFC 6455 8.1).
    Utf8Invalid,
    /// A compressed message whose bytes are not whole blocks of RFC 1951.
    DeflateInvalid,
    /// A message that exceeds the limit.
    MessageTooLarge,
    /// A message in more fragments than the limit.
    FragmentsTooMany,
}

impl Fault {
    /// Every fault, for tables and tests.
    pub const ALL: [Fault; 16] = [
        Fault::ReservedBits,
        Fault::OpCodeReserved,
        Fault::ControlFragmented,
        Fault::ControlTooLarge,
        Fault::LengthNotMinimal,
        Fault::LengthOutOfRange,
        Fault::MaskMissing,
        Fault::MaskUnexpected,
        Fault::ContinuationUnexpected,
        Fault::MessageInterrupted,
        Fault::CloseTruncated,
        Fault::CloseCodeInvalid,
        Fault::Utf8Invalid,
        Fault::DeflateInvalid,
        Fault::MessageTooLarge,
        Fault::FragmentsTooMany,
    ];

    /// The close code for the peer (RFC 6455 7.4.1): 1002 protocol error, 1007 not UTF-8 or not compressed as it says,
    /// 1009 too large.
    pub const fn close_code(self) -> u16 {
        match self {
            Fault::ReservedBits
            | Fault::OpCodeReserved
            | Fault::ControlFragmented
            | Fault::ControlTooLarge
            | Fault::LengthNotMinimal
            | Fault::LengthOutOfRange
            | Fault::MaskMissing
            | Fault::MaskUnexpected
            | Fault::ContinuationUnexpected
            | Fault::MessageInterrupted
            | Fault::CloseTruncated
            | Fault::CloseCodeInvalid => 1002,
            Fault::Utf8Invalid | Fault::DeflateInvalid => 1007,
            Fault::MessageTooLarge | Fault::FragmentsTooMany => 1009,
        }
    }

    /// The reason in a few words, for the close frame and the log.
    pub const fn reason(self) -> &'static str {
        match self {
            Fault::ReservedBits => "reserved bits are set",
            Fault::OpCodeReserved => "reserved opcode",
            Fault::ControlFragmented => "fragmented control frame",
            Fault::ControlTooLarge => "control frame over 125 bytes",
            Fault::LengthNotMinimal => "length not in its shortest form",
            Fault::LengthOutOfRange => "length over 63 bits",
            Fault::MaskMissing => "frame from a client without a mask",
            Fault::MaskUnexpected => "frame from a server with a mask",
            Fault::ContinuationUnexpected => "continuation without a message",
            Fault::MessageInterrupted => "new message inside a fragmented one",
            Fault::CloseTruncated => "close frame of one byte",
            Fault::CloseCodeInvalid => "invalid close code",
            Fault::Utf8Invalid => "invalid UTF-8",
            Fault::DeflateInvalid => "invalid compressed data",
            Fault::MessageTooLarge => "message too large",
            Fault::FragmentsTooMany => "message in too many fragments",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{CONTROL_PAYLOAD_BYTES_MAX, close_code_is_valid};
    use super::*;

    #[test]
    fn every_fault_fits_a_close_frame() {
        for fault in Fault::ALL {
            assert!(close_code_is_valid(fault.close_code()), "{fault:?}");
            assert!(fault.reason().len() + 2 <= CONTROL_PAYLOAD_BYTES_MAX, "{fault:?}");
        }
    }
}
