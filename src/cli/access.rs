//! Where a server is, and what the commands show it: a key of the server API, or a token of a client. They come from
//! flags, or from the settings that the server was started with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use jsonwebtoken::get_current_timestamp;

use fantail::config::{ApiRight, Config, Given, ListenAddress, Origin, Secret, Setting, Sources};

use super::client::{Scheme, Server, Trouble, Trust};
use super::token::{Claims, can_sign, sign};

/// Where a server is.
#[derive(Args, Debug)]
pub struct Place {
    /// Address of the server [default: that of the settings, http://127.0.0.1:8000 without any]
    #[arg(long, value_name = "URL")]
    server: Option<Server>,
    #[command(flatten)]
    trust: Trust,
    /// Settings file of the server, TOML, for its address and keys [default: $FANTAIL_CONFIG, or none]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What a client shows.
#[derive(Args, Debug)]
pub struct Identity {
    /// The token of a client [default: one made with a secret of the settings, if the server needs one]
    #[arg(long, value_name = "TOKEN")]
    token: Option<Secret>,
    /// The user of a token that is made with a secret of the settings
    #[arg(long, value_name = "USER", conflicts_with = "token")]
    user: Option<String>,
}

/// What a backend shows.
#[derive(Args, Debug)]
pub struct Backend {
    /// API key of the server, if it requires one [default: $FANTAIL_API_KEY, or one of the settings]
    #[arg(long, value_name = "SECRET")]
    api_key: Option<Secret>,
}

/// A place, with the settings of the server there, as far as they are known.
#[derive(Debug)]
pub struct Target {
    server: Option<Server>,
    trust: Trust,
    config: Config,
}

/// The tokens of a client.
#[derive(Debug)]
pub enum Tokens {
    /// It has none.
    None,
    /// It was given one.
    Given(Secret),
    /// They are made for a user as they are needed, with a secret of these settings.
    Made(Box<Config>, String),
}

impl Identity {
    /// Whether a token or a user was given.
    pub fn is_given(&self) -> bool {
        self.token.is_some() || self.user.is_some()
    }
}

impl Place {
    /// Reads the settings.
    pub fn load(self) -> Result<Target, String> {
        let Self { server, trust, config } = self;
        // Whether the server may serve other hosts is not decided here.
        let insecure = Setting::named("insecure").expect("a row of the table");
        let origin = Origin::Flag(insecure.flag);
        let insecure = Given { setting: insecure, texts: vec!["true".to_owned()], origin };
        let sources = Sources { file: config, flags: vec![insecure] };
        let config = sources.load().map_err(|error| error.to_string())?.config;
        Ok(Target { server, trust, config })
    }
}

impl Target {
    /// The address of HTTP for clients.
    pub fn http(&self) -> Result<Server, String> {
        self.address(Scheme::Http, &self.config.listen)
    }

    /// The address of commands over raw TCP.
    pub fn tcp(&self) -> Result<Server, String> {
        self.address(Scheme::Tcp, &self.config.tcp)
    }

    /// The address of the server API and the metrics.
    pub fn admin(&self) -> Result<Server, String> {
        let Config { admin, listen, .. } = &self.config;
        self.address(Scheme::Http, if admin.is_empty() { listen } else { admin })
    }

    /// The address that was given, or the first of the settings.
    fn address(&self, scheme: Scheme, listen: &[ListenAddress]) -> Result<Server, String> {
        let default = match scheme {
            Scheme::Http => "http://127.0.0.1:8000",
            Scheme::Tcp => "tcp://127.0.0.1:8001",
        };
        if let Some(server) = &self.server {
            let server = server.clone().speaking(scheme);
            let server = server.ok_or_else(|| format!("this needs an address like {default}"));
            return server?.trusting(&self.trust);
        }
        let first = listen.iter().find_map(|listen| Some((listen.ip()?, listen.is_encrypted)));
        let server = first.filter(|(address, _)| address.port() != 0).map_or_else(
            || default.parse().expect("an address"),
            |(address, is_encrypted)| Server::at(scheme, reached_here(address), is_encrypted),
        );
        server.trusting(&self.trust)
    }

    /// A key that allows a method: the one that was given, or the first of the settings.
    pub fn api_key(&self, given: &Backend, right: ApiRight) -> Option<Secret> {
        let Config { api_key, api_keys, .. } = &self.config;
        let named = || {
            let mut keys = api_keys.iter();
            keys.find(|key| key.rights.methods.contains(right)).map(|key| key.secret.clone())
        };
        given.api_key.clone().or_else(|| api_key.clone()).or_else(named)
    }

    /// The tokens of a client.
    pub fn tokens(&self, identity: Identity) -> Result<Tokens, String> {
        let Self { config, .. } = self;
        let Identity { token, user } = identity;
        match (token, user) {
            (Some(token), _) => Ok(Tokens::Given(token)),
            (None, Some(user)) => {
                let made = Tokens::Made(Box::new(config.clone()), user);
                made.connection().map(|_| made)
            }
            (None, None) if !config.allows_anonymous() && can_sign(config) => {
                Ok(Tokens::Made(Box::new(config.clone()), String::new()))
            }
            (None, None) => Ok(Tokens::None),
        }
    }
}

impl Tokens {
    /// The token for a connection.
    pub fn connection(&self) -> Result<Option<Secret>, String> {
        self.make(None)
    }

    /// The value of the header `Authorization` of a connection.
    pub fn authorization(&self) -> Result<Option<String>, Trouble> {
        let token = self.connection().map_err(Trouble::Refused)?;
        Ok(token.map(|token| format!("Bearer {}", token.expose())))
    }

    /// The token for a subscription to a private channel, if one can be made.
    pub fn subscription(&self, channel: &str) -> Result<Option<Secret>, String> {
        match self {
            Tokens::Made(..) if channel.starts_with('$') => self.make(Some(channel)),
            _ => Ok(None),
        }
    }

    fn make(&self, channel: Option<&str>) -> Result<Option<Secret>, String> {
        match self {
            Tokens::None => Ok(None),
            Tokens::Given(token) => Ok(Some(token.clone())),
            Tokens::Made(config, user) => {
                let claims = Claims::new(user, get_current_timestamp(), config);
                let claims = claims.for_channel(channel);
                let token = sign(&claims, LIFETIME_SECONDS, config)?;
                Ok(Some(token.into()))
            }
        }
    }
}

/// The address at which this host reaches a server that listens on `address`: clients cannot connect to 0.0.0.0 and
/// [::].
pub fn reached_here(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    address
}

/// How long a token is valid that a command makes for itself. It makes a new one for each connection.
const LIFETIME_SECONDS: u64 = 24 * 60 * 60;
