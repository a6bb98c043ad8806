//! Addresses that are believed: `10.0.0.0/8`, `::1`, and `unix` for clients on a Unix socket.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Those of a network; IPv4 addresses within IPv6 count as IPv4.
    Range(IpNet),
    /// Clients on a Unix socket.
    Unix,
}

impl Network {
    /// Reads an address, a range in CIDR form (RFC 4632), or `unix`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "unix" {
            return Ok(Self::Unix);
        }
        let bad = || format!("must be an address or a range like `10.0.0.0/8`, or `unix`, got `{text}`");
        let range = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        range.map(Self::Range).map_err(|_| bad())
    }

    fn holds(&self, other: IpAddr) -> bool {
        match self {
            Self::Unix => false,
            Self::Range(range) => range.contains(&other),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix => f.write_str("unix"),
            Self::Range(range) => range.fmt(f),
        }
    }
}

/// Several of them; none holds nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(pub Vec<Network>);

impl Networks {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an address is in one of them.
    #[must_use]
    pub fn hold(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.0.iter().any(|network| network.holds(ip))
    }

    /// Whether clients on a Unix socket are meant.
    #[must_use]
    pub fn hold_unix(&self) -> bool {
        self.0.contains(&Network::Unix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_what_begins_alike() {
        let hold = |range: &str, ip: &str| Networks(vec![Network::parse(range).unwrap()]).hold(ip.parse().unwrap());
        for (range, ip, holds) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.2", false),
            ("10.1.2.3/31", "10.1.2.2", true),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "::1", true),
            ("fd00::/8", "fdff::1", true),
            ("fd00::/8", "fe00::1", false),
            ("127.0.0.0/8", "::ffff:127.0.0.1", true),
            ("unix", "127.0.0.1", false),
        ] {
            assert_eq!(hold(range, ip), holds, "{range} {ip}");
        }
    }

    #[test]
    fn what_is_no_range_is_told() {
        for bad in ["", "10.0.0.0/33", "::/129", "10.0.0", "example.com", "10.0.0.0/", "10.0.0.0/-1", "/8", "*"] {
            assert!(Network::parse(bad).is_err_and(|why| why.contains("10.0.0.0/8")), "{bad}");
        }
        assert_eq!(Network::parse("10.0.0.1").unwrap().to_string(), "10.0.0.1/32");
    }
}
