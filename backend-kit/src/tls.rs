//! TLS: the provider of rustls's cryptography, and the error of a build without TLS.
//!
//! The drivers speak TLS through rustls, which takes its cryptography from a provider. rustls panics at the first connection if
//! nobody has installed a provider and the program contains two, because another crate brought the second. So a backend
//! installs ours before its first connection over TLS. A provider that the application has installed stays.
//!
//! Each backend knows by its own features whether it has TLS. The features here don't say it: another backend may have
//! turned them on.

use delayline_core::Error;

use crate::options::bad;

/// Makes sure that rustls has a provider: the installed one, else ring (feature `tls-ring`), else AWS-LC (feature
/// `tls-aws-lc-rs`).
///
/// Call it before each connection over TLS; repeated, it does nothing. Without both features it does nothing.
pub fn install_provider() {
    #[cfg(any(feature = "tls-ring", feature = "tls-aws-lc-rs"))]
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // It fails if another thread has installed one meanwhile, which is as good.
        let _ = provider().install_default();
    }
}

#[cfg(feature = "tls-ring")]
fn provider() -> rustls::crypto::CryptoProvider {
    rustls::crypto::ring::default_provider()
}

#[cfg(all(feature = "tls-aws-lc-rs", not(feature = "tls-ring")))]
fn provider() -> rustls::crypto::CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

/// The [`Config`](delayline_core::ErrorKind::Config) error for what needs TLS, such as `` `rediss://` ``, in a build
/// without it.
#[must_use]
pub fn not_built(what: &str) -> Error {
    bad(format!("{what} needs TLS, and this build has none: turn on the Cargo feature `tls-ring` or `tls-aws-lc-rs`"))
}

#[cfg(all(test, any(feature = "tls-ring", feature = "tls-aws-lc-rs")))]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_installed_once_and_ring_is_the_first_choice() {
        install_provider();
        let installed = rustls::crypto::CryptoProvider::get_default().expect("it was installed").clone();
        let ours = if cfg!(feature = "tls-ring") { "Ring" } else { "AwsLcRs" };
        assert_eq!(format!("{:?}", installed.secure_random), ours);
        install_provider();
        assert!(std::sync::Arc::ptr_eq(&installed, rustls::crypto::CryptoProvider::get_default().unwrap()));
    }
}
