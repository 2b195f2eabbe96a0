#!/usr/bin/env bash
# A base image from Debian's packages alone, for places that reach no container registry: Debian's Python 3.11 where the
# stock Dockerfile says python:3.11-slim. Needs root, buildah and debootstrap
#   apt-get install buildah debootstrap fuse-overlayfs crun netavark
# and about two minutes. Then
#   streamrec containerize TAG --backend buildah --base-image localhost/streamrec-base:3.11 --isolated
#
#   base.sh [NAME]         default NAME: localhost/streamrec-base:3.11
set -euo pipefail
name=${1:-localhost/streamrec-base:3.11}
export BUILDAH_ISOLATION=${BUILDAH_ISOLATION:-chroot} STORAGE_DRIVER=${STORAGE_DRIVER:-vfs}
for tool in buildah debootstrap; do
  command -v "$tool" >/dev/null || { echo "$0: $tool is not installed" >&2; exit 5; }
done
root=$(mktemp -d)
trap 'rm -rf "$root" "$root.tar"' EXIT
debootstrap --variant=minbase --include=bash,ca-certificates,passwd,python3,python3-pip,python3-venv \
  bookworm "$root" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} >&2
rm -f "$root"/usr/lib/python3*/EXTERNALLY-MANAGED # the image is the environment
ln -sf python3 "$root/usr/bin/python"
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/usr/share/doc/* "$root"/usr/share/man/*
tar -C "$root" -cf "$root.tar" .
container=$(buildah from scratch)
buildah add --quiet "$container" "$root.tar" / >/dev/null
# Both pip and uv trust the certificates that the system trusts: a mirror of one's own may need one of one's own.
certificates=/etc/ssl/certs/ca-certificates.crt
buildah config --env SSL_CERT_FILE=$certificates --env PIP_CERT=$certificates --env UV_SYSTEM_CERTS=1 \
  --env UV_NATIVE_TLS=1 --cmd bash "$container"
buildah commit --quiet --rm "$container" "$name" >/dev/null
echo "$name"
