#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# The stock tools on the plugin: write, reopen, verify, check point, back up, restore, look into.
# timeout: 400
suite=rocksdb_tools
. "$(dirname "$0")/../rocksdb/lib.sh"

new_image 2G
keys=100000
bench="db_bench --fs_uri=$uri --db=/bench --num=$keys --value_size=400 --compression_type=none --write_buffer_size=8388608"
ldb="ldb --fs_uri=$uri"

good fill 'fillseq' $bench --benchmarks=fillseq
in_image tables_are_in_the_image /bench '\.sst'
good reopened_and_verified 'readrandom.*('$keys' of '$keys' found)' $bench --use_existing_db=1 \
	--benchmarks=readrandom,verifychecksum
good overwritten 'overwrite' $bench --use_existing_db=1 --benchmarks=overwrite,compact,levelstats,verifychecksum
good multireads 'multireadrandom' $bench --use_existing_db=1 --benchmarks=multireadrandom --batch_size=64 \
	--multiread_batched=1 --reads=20000
good multireads_in_parallel 'multireadrandom' $bench --use_existing_db=1 --benchmarks=multireadrandom --batch_size=64 \
	--multiread_batched=1 --reads=20000 --threads=4
good scans 'readseq' $bench --use_existing_db=1 --benchmarks=readseq,readreverse,seekrandom --reads=20000
good async_scans 'seekrandom' $bench --use_existing_db=1 --benchmarks=seekrandom --reads=5000 --seek_nexts=100 --async_io=1
good writers_and_readers 'readwhilewriting' $bench --use_existing_db=1 --benchmarks=readwhilewriting --threads=4 --reads=20000
good deletions 'deleterandom' $bench --use_existing_db=1 --benchmarks=deleterandom,compact,verifychecksum --deletes=20000
good direct 'readrandom.*found' $bench --benchmarks=fillrandom,overwrite,readrandom,compact,verifychecksum --db=/direct \
	--use_direct_reads=1 --use_direct_io_for_flush_and_compaction=1 --reads=10000
good synced_writes 'fillsync' $bench --benchmarks=fillsync,verifychecksum --db=/sync --num=2000
good many_writers 'fillrandom' $bench --benchmarks=fillrandom,verifychecksum --db=/threads --threads=8 --num=20000 \
	--wal_bytes_per_sync=65536 --bytes_per_sync=65536
good blob_files 'readrandom' $bench --benchmarks=fillrandom,compact,readrandom,verifychecksum --db=/blobs --num=20000 \
	--enable_blob_files=1 --min_blob_size=100

# Recycled logs and strict write-back need an options file.
cat >"$tmp/options" <<'END'
[Version]
  rocksdb_version=7.8.3
  options_file_version=1.1
[DBOptions]
  recycle_log_file_num=4
  wal_recovery_mode=kSkipAnyCorruptedRecords
  create_if_missing=true
  bytes_per_sync=65536
  wal_bytes_per_sync=65536
  strict_bytes_per_sync=true
[CFOptions "default"]
  write_buffer_size=1048576
[TableOptions/BlockBasedTable "default"]
END
# db_bench reads its options through the file system it was told to use.
if blobfs put "$img" "$tmp/options" /options >"$tmp/out" 2>&1; then
	good recycled_logs 'overwrite' db_bench --fs_uri="$uri" --db=/recycled --options_file=/options --num=50000 \
		--value_size=400 --benchmarks=fillrandom,overwrite,verifychecksum
else
	bad recycled_logs 'blobfs put failed'
fi
good recycled_exactly '' "$driver" recycle "$uri" /recycled-exactly
good ingested '' "$driver" ingest "$uri" /ingested
good opened_twice 'second opening: IO error' "$driver" twice "$uri" /twice

good ldb_put OK $ldb --db=/small --create_if_missing put a 1
good ldb_batchput OK $ldb --db=/small batchput b 2 c 3 d 4 e 5
good ldb_deleterange OK $ldb --db=/small deleterange b d
good ldb_get '^5$' $ldb --db=/small get e
good ldb_scan '^d : 4$' $ldb --db=/small scan
good ldb_compact '' $ldb --db=/bench compact
good ldb_list_file_range_deletes '' $ldb --db=/small list_file_range_deletes
good ldb_manifest_dump 'log_number\|next_file_number' $ldb --db=/bench manifest_dump
good ldb_dump_live_files 'MANIFEST' $ldb --db=/bench dump_live_files
good ldb_list_live_files '\.sst' $ldb --db=/bench list_live_files_metadata
good ldb_list_column_families default $ldb --db=/small list_column_families
good ldb_checkconsistency OK $ldb --db=/bench checkconsistency
good ldb_approxsize '[0-9]' $ldb --db=/bench approxsize --from=0 --to=z
good ldb_repair OK $ldb --db=/small repair

# The keys and values of a database, as a number and a sum.
contents() {
	LD_PRELOAD=$plugin BLOBFS_LOG=rocksdb=info $ldb --db="$1" scan --hex >"$tmp/scan" 2>"$tmp/out" </dev/null &&
		plugin_ran "scan of $1" && wc -l <"$tmp/scan" && md5sum <"$tmp/scan"
}

# Checkpoint, and a backup that is restored: the same keys and values.
good ldb_checkpoint OK $ldb --db=/bench checkpoint --checkpoint_dir=/checkpoint
good ldb_backup '' $ldb --db=/bench backup --backup_fs_uri="$uri" --backup_dir=/backup
good ldb_restore '' $ldb --db=/restored restore --backup_fs_uri="$uri" --backup_dir=/backup
in_image backup_is_in_the_image /backup/shared_checksum '\.sst'
want=$(contents /bench)
if [ "${want%% *}" = "" ] || [ ! -s "$tmp/scan" ]; then bad original_is_read 'nothing there'; fi
for copy in checkpoint restored; do
	if [ "$want" = "$(contents /$copy)" ]; then echo "ok $suite/$copy is the same"; else bad $copy 'differs'; fi
done

table=$(blobfs ls "$img" /bench | grep -o '[0-9]*\.sst' | head -1)
good sst_dump_verify '' sst_dump --fs_uri="$uri" --file=/bench --command=verify
good sst_dump_check 'Sst file format' sst_dump --fs_uri="$uri" --file="/bench/$table" --command=check --show_properties
good sst_dump_scan '=>' sst_dump --fs_uri="$uri" --file="/bench/$table" --command=scan --read_num=10
if grep -qi 'corrupt' "$tmp/out"; then bad sst_dump_verify 'corruption found'; fi

# What is not synced is there when the program ended by itself, whatever it left open.
good leaked_at_exit 'synced at exit\|closed' "$driver" leak "$uri" /leak 5000
good leaked_is_there 'verified 5000' "$driver" verify "$uri" /leak 5000
good a_forks_child_does_no_harm 'child: status 0' "$driver" fork "$uri" /fork
good forked_is_there 'verified 2000' "$driver" verify "$uri" /fork 2000
checked image_is_whole
exit $status
