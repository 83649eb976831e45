#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# A device that fills up: RocksDB is told NoSpace, loses nothing acknowledged, and goes on when space was freed.
# timeout: 200
suite=rocksdb_full
. "$(dirname "$0")/../rocksdb/lib.sh"

new_image 160M
good files 'pieces are right' "$driver" full-files "$uri?cache=32M"
checked "files, image is whole"
for how in unlogged logged; do
	new_image 160M
	with_plugin "$driver" fill "$uri?cache=32M" /db $how
	code=$?
	plugin_ran "$how" || continue
	# Debian's RocksDB has its assertions on, and one of them does not expect a log or manifest that could not be written.
	if [ $code = 134 ] && grep -q 'WritableFileWriter::.*Assertion .sync_without_flush_called_' "$tmp/out"; then
		good "$how, sound after RocksDB gave up" 'verified 0 keys' "$driver" verify "$uri" /db 0
		echo "skip $suite/$how, recovers after space is freed: an assertion of RocksDB itself"
	elif [ $code != 0 ]; then
		bad "$how, recovers after space is freed" "exit code $code"
	elif ! grep -q 'after [0-9]* keys: IO error: No space' "$tmp/out" || ! grep -q 'recovered with' "$tmp/out"; then
		bad "$how, no space reaches rocksdb" 'it was told something else'
	else
		echo "ok $suite/$how, recovers after space is freed"
	fi
	checked "$how, image is whole"
done
exit $status
