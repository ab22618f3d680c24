//! Networks of addresses, as settings have them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A network, written 10.0.0.0/8, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(IpNet);

impl Network {
    /// Whether an address is in the network. An IPv4-mapped IPv6 address counts as the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl Network {
    /// The network with the leading bits of an address: `v4_bits` of them, or `v6_bits`. An IPv4-mapped IPv6 address
    /// counts as the IPv4 address.
    pub fn of(address: IpAddr, v4_bits: u8, v6_bits: u8) -> Self {
        let network = match address.to_canonical() {
            IpAddr::V4(address) => Ipv4Net::new_assert(address, v4_bits.min(32)).into(),
            IpAddr::V6(address) => Ipv6Net::new_assert(address, v6_bits.min(128)).into(),
        };
        Self(IpNet::trunc(&network))
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let one = text.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical()));
        let network = one.or_else(|_| text.parse::<IpNet>());
        let network = network.map_err(|_| {
            format!("'{text}' is not a network such as 10.0.0.0/8 or fd00::/8, nor an address")
        })?;
        if network.addr() != network.network() {
            let [meant, one] = [network.trunc().to_string(), network.addr().to_string()];
            return Err(format!("'{text}' has bits behind its prefix: write {meant}, or {one}"));
        }
        Ok(Self(network))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.prefix_len() == self.0.max_prefix_len() {
            true => self.0.addr().fmt(out),
            false => self.0.fmt(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_the_addresses_with_its_prefix() {
        let contains = |network: &str, address: &str| {
            network.parse::<Network>().unwrap().contains(address.parse().unwrap())
        };
        assert!(contains("10.0.0.0/8", "10.255.0.1") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("10.0.0.0/8", "::ffff:10.0.0.1"));
        assert!(contains("192.0.2.1", "192.0.2.1") && !contains("192.0.2.1", "192.0.2.2"));
        assert!(contains("fd00::/8", "fd12::1") && !contains("fd00::/8", "fe80::1"));
        assert!(contains("0.0.0.0/0", "255.255.255.255") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("::1", "::1"));
    }

    #[test]
    fn the_network_of_an_address_has_its_leading_bits() {
        let of = |address: &str| Network::of(address.parse().unwrap(), 24, 48).to_string();
        assert_eq!(of("192.0.2.77"), "192.0.2.0/24");
        assert_eq!(of("::ffff:192.0.2.77"), "192.0.2.0/24");
        assert_eq!(of("2001:db8:1:2::3"), "2001:db8:1::/48");
        let whole = Network::of("192.0.2.77".parse().unwrap(), 32, 128);
        assert_eq!(whole.to_string(), "192.0.2.77");
        assert_eq!(Network::of("2001:db8::1".parse().unwrap(), 1, 1).to_string(), "::/1");
    }

    #[test]
    fn networks_are_shown_as_they_are_written_and_others_are_refused() {
        for text in ["10.0.0.0/8", "192.0.2.1", "fd00::/8", "::1", "0.0.0.0/0"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        for text in ["", "10", "10.0.0.0/33", "fd00::/129", "localhost", "10.0.0.0/", "/8"] {
            assert!(text.parse::<Network>().unwrap_err().contains("is not a network"), "{text}");
        }
        let fault = "10.0.0.1/8".parse::<Network>().unwrap_err();
        assert!(fault.contains("write 10.0.0.0/8, or 10.0.0.1"), "{fault}");
    }
}
