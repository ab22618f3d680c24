//! Settings and limits: plain data.
//!
//! **What it is.** [`Config`] has the settings with their defaults; [`limits`] are fixed at compile time.
//! [`SETTINGS`] has a row for each setting: its name, range, flag, and its place in [`Config`]. [`Sources`] are the
//! file, the environment and the flags; reading them gives a checked [`Loaded`] configuration.
//!
//! **In and out.** In: text. Out: checked values, or sentences that name the setting, the value, the range, and where
//! it was set.
//!
//! **Always true.** The file overrides the defaults, the environment the file, flags the environment. A checked
//! configuration satisfies every relation that the other rooms rely on.
//!
//! **Must not know.** How the values are used.

mod api_keys;
mod callbacks;
mod channel_options;
mod channel_regex;
mod check;
mod configuration;
mod events;
pub mod limits;
mod listen_address;
mod load;
mod log_levels;
mod namespaces;
mod nearest;
mod network;
mod origin;
mod secret;
mod setting;
mod settings;
mod token_keys;
mod units;
mod without_effect;

pub use api_keys::{API_KEY_OPTIONS, ApiKey, ApiMethods, ApiRight, ApiRights};
pub use callbacks::{
    CALLBACK_OPTIONS, Callback, CallbackKind, CallbackOption, Callbacks, shown_url,
};
pub use channel_options::{CHANNEL_OPTIONS, ChannelOption};
pub use channel_regex::ChannelRegex;
pub use check::ConfigError;
pub use configuration::{
    ClientAuth, ClientHeader, Config, DriverChoice, ErrorMode, Framing, LogFormat,
    PersonalChannels, TlsConfig, TlsVersion, UnixMode,
};
pub use events::{EVENT_OPTIONS, EventKind, EventSettings};
pub use listen_address::{BindAddress, ListenAddress};
pub use load::{Given, Loaded, Sources};
pub use log_levels::{LogLevel, LogLevels, ROOMS};
pub use namespaces::{
    ChannelOptions, ClientRight, NamespaceId, Namespaces, RecoveryMode, STATISTICS_CHANNEL,
    SlowConsumer,
};
pub use network::Network;
pub use origin::{FILE_VARIABLE, Origin};
pub use secret::Secret;
pub use setting::{Setting, SettingKind};
pub use settings::{SETTINGS, markdown};
pub use token_keys::{TOKEN_KEY_OPTIONS, TokenKey};
pub use units::{parse_count, parse_seconds};
