# The image holds three files: the binary, linked statically, the CAs that Debian trusts,
# and the name of the user. No shell, nothing to write to:
#
#   docker build --build-arg ONCEHOOK_REVISION="$(git rev-parse --short HEAD)" -t oncehook .
#   docker run --read-only --cap-drop ALL --security-opt no-new-privileges -p 8443:8443 \
#       -v "$PWD/oncehook.toml:/etc/oncehook/oncehook.toml:ro" oncehook
#
# The health check asks the admin listener, which stays on its loopback address.

FROM rust:1.95-bookworm AS build
ARG ONCEHOOK_REVISION
WORKDIR /build
COPY . .
# It installs what it needs to run the program under load before it builds it for good.
RUN RUSTFLAGS="-C target-feature=+crt-static" ./release \
    && mkdir -p /image/etc/ssl/certs \
    && cp target/release-pgo/oncehook /image/oncehook \
    && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
    && echo 'oncehook:x:65532:65532::/:/oncehook' > /image/etc/passwd

FROM scratch
COPY --from=build /image/ /
USER 65532:65532
EXPOSE 8443
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["/oncehook", "healthcheck"]
ENTRYPOINT ["/oncehook"]
CMD ["run", "--config", "/etc/oncehook/oncehook.toml"]
