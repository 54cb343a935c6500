//! `payrelay token`: prints the token with which a client says hello.

use super::{Failure, print};
use crate::args::TokenArgs;
use crate::auth::ClientSecrets;

/// Prints the token of `args.client`, made with the first secret of the file.
///
/// # Errors
///
/// The secret file cannot be used ([`Failure::Usage`]), or standard output.
pub fn run(args: &TokenArgs) -> Result<(), Failure> {
    let secrets = ClientSecrets::load(&args.client_secret_file).map_err(|error| Failure::Usage(error.to_string()))?;
    let token = secrets.token(args.client.as_str());
    print(format!("{token}\n").as_bytes()).map(|_| ())
}
