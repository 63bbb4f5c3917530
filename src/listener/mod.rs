//! Accept, TLS, connection limits, graceful end; generic over the service.
