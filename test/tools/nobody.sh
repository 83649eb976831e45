# SPDX-License-Identifier: BSD-2-Clause
# The programs as a user without rights has them, for shell tests that run as root.
as_nobody='setpriv --reuid 65534 --regid 65534 --clear-groups'

# Has $nobodys/bin and $nobodys/lib: copies, if the project lies where others may not look (in root's home, say).
for_nobody() {
	nobodys=$BUILD
	$as_nobody test -x "$BUILD/bin/blobfs" && return
	nobodys=$tmp/nobodys
	mkdir -p "$nobodys" && cp -r "$BUILD/bin" "$BUILD/lib" "$nobodys" && chmod -R go+rX "$nobodys"
}
