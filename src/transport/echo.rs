//! The echo over raw TCP: every byte comes back.

use std::convert::Infallible;

use super::context::{Context, Flow};
use super::contract::{Traits, Transport};
use crate::message::{CloseReason, TransportKind};

/// An echo, which has no state.
#[derive(Debug)]
pub struct Echo;

impl Transport for Echo {
    type Next = Infallible;

    fn traits(&self) -> Traits {
        Traits::of(TransportKind::EchoTcp)
    }

    fn receive(&mut self, bytes: &mut [u8], context: &mut Context<'_>) -> Flow {
        context.out.extend_from_slice(bytes);
        Flow::Receive
    }

    fn end(&mut self, context: &mut Context<'_>) -> Flow {
        context.close(CloseReason::ClientClosed)
    }
}
