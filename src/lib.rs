//! payrelay: a payment relay.
