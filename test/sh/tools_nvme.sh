#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# blobfs-nvme: what it says of controllers and of the machine.
# timeout: 240
suite=tools_nvme
. "$(dirname "$0")/../tools/lib.sh"
. "$root/test/tools/nvmet.sh"

# has NAME EXPRESSION: of the JSON in .out, as `j`.
has() {
	python3 -c "import json; j = json.load(open('$tmp/.out')); assert $2, j" 2>"$tmp/.err" &&
		ok "$1" || bad "$1" "not so: $2"
}

# ---- the command line ----
is help 0 identify blobfs-nvme --help
is help_of_a_verb 0 'json' blobfs-nvme help identify
is help_of_an_option 0 'Usage: blobfs-nvme smart' blobfs-nvme smart --help
is version 0 '[0-9]' blobfs-nvme --version
is no_verb 2 Usage blobfs-nvme
refused unknown_verb 2 "no verb 'dance'" blobfs-nvme dance
refused no_device 2 'no device given' blobfs-nvme identify
refused too_much 2 'too many' blobfs-nvme smart a b
is unknown_option 2 "unrecognized" blobfs-nvme errors --jsonn "$dev"
for verb in identify smart errors; do
	refused "${verb}_of_a_file" 1 'not an NVMe device' blobfs-nvme $verb "$tmp/img"
	refused "${verb}_of_nothing" 1 'No such file' blobfs-nvme $verb "$dev"
done
refused namespace_zero 1 'not an NVMe device: .*no such namespace' blobfs-nvme identify nvme:0000:01:00.0/0
refused no_timeout 1 'the timeout is 0.1 to 3600 seconds' blobfs-nvme smart nvme:0000:01:00.0,timeout=0

# ---- a controller ----
serve --size 64M --block 4096 --mdts 4
is identify 0 'mn  *: BlobFS test controller' blobfs-nvme identify "$dev"
is identify_says_limits 0 'NVMe 1.4, transfers up to 64 KiB' blobfs-nvme identify "$dev"
is identify_formats 0 'lbads:12 rp:0 (in use)' blobfs-nvme identify "$dev"
is identify_one 0 'namespace 1 (64 MiB)' blobfs-nvme identify "$dev/1"
refused identify_none 1 'cannot identify namespace 9' blobfs-nvme identify "$dev/9"
run blobfs-nvme identify --json "$dev"
has identify_json "j['controller']['mdts'] == 4 and j['controller']['sn'] == 'NVMET0001' and j['namespaces'][0]['nsze'] == 16384 and j['namespaces'][0]['lbafs'][0]['ds'] == 12"
is smart 0 'avail_spare  *: 100' blobfs-nvme smart "$dev"
is smart_for_people 0 '27 degrees Celsius' blobfs-nvme smart "$dev"
run blobfs-nvme smart "$dev" --json
has smart_json "j['temperature'] == 300 and j['critical_warning'] == 0"
is errors 0 'entries of the error log are used' blobfs-nvme errors "$dev"
run blobfs-nvme errors --json "$dev"
has errors_json "j['errors'] == []"
end_of_target keeps_to_the_specification

# ---- how fast ----
serve --size 64M --file img
refused perf_of_nothing 1 'No such file' blobfs-nvme perf "$tmp/none"
refused perf_odd_size 2 'out of the question' blobfs-nvme perf "$dev" -o 1000
refused perf_no_pattern 2 'dance is out of the question' blobfs-nvme perf "$dev" -w dance
refused perf_too_deep 1 'a queue takes' blobfs-nvme perf "$dev" -q 4096
refused perf_too_wide 1 'has 64 queue pairs' blobfs-nvme perf "$dev" -c 100
refused perf_too_large 1 'no room' blobfs-nvme perf "$dev" -o 16M -c 5
sane="j['iops'] > 100 and abs(j['mb_per_s'] - j['iops'] * j['io_size'] / 1e6) < 0.01 + j['mb_per_s'] / 100 and 0 < j['latency_us']['p50'] <= j['latency_us']['p99'] <= j['latency_us']['p99.9'] <= j['latency_us']['max'] and j['cycles_per_io'] > 10 and 0.3 <= j['seconds'] < 20"
for w in randread read randwrite write randrw rw; do
	run blobfs-nvme perf "$dev" -w $w -t 0.3 -q 4 -o 8K --json
	case $w in
	*read) what="j['read']['ios'] == j['ios'] > 0" ;;
	*write) what="j['write']['ios'] == j['ios'] > 0" ;;
	*) what="j['read']['ios'] and j['write']['ios'] and j['read']['ios'] + j['write']['ios'] == j['ios']" ;;
	esac
	has "perf_$w" "$sane and $what and 0 < j['busy_cycles_per_io'] <= j['cycles_per_io']"
done
run blobfs-nvme perf "$dev" -c 3 -q 2 -t 0.5 --json
has perf_three_channels "$sane and j['channels'] == 3"
is perf_for_people 0 'IOPS .*MB/s .*p99.9' blobfs-nvme perf "$dev" -t 0.3
is perf_512 0 'read' blobfs-nvme perf "$dev/1" -t 0.3 -o 512 -q 1
end_of_target perf_keeps_to_the_specification
run blobfs-nvme perf img -w randwrite -t 0.3 -q 4 --json
has perf_of_a_file "$sane and j['write']['ios'] == j['ios']"
run blobfs-nvme perf img -w randrw -t 0.3 -q 1 -c 2 --json
has perf_of_a_file_one_by_one "$sane"
run blobfs-nvme perf ram:64M -t 0.3 --json
has perf_of_memory "$sane"

# Nothing is written over what is somebody's.
mkfs.ext4 -q -F -E nodiscard img
unchanged perf_spares_ext4 img blobfs-nvme perf img -w write -t 0.3
refused perf_says_ext4 1 'holds a ext4 signature' blobfs-nvme perf img -w randrw
serve --size 64M --file img
refused perf_spares_ext4_on_nvme 1 'holds a ext4 signature' blobfs-nvme perf "$dev" -w randwrite
refused mkfs_spares_ext4_on_nvme 8 'holds a ext4 signature' mkfs.blobfs "$dev"
is perf_reads_it 0 IOPS blobfs-nvme perf "$dev" -t 0.3
is mkfs_over_ext4 0 'Made BlobFS' mkfs.blobfs -f "$dev"
refused perf_spares_blobfs 1 'holds a BlobFS file system' blobfs-nvme perf "$dev" -w rw
refused mkfs_spares_blobfs 8 'holds a BlobFS file system' mkfs.blobfs "$dev"
is fsck_after_that 0 clean fsck.blobfs -n -f "$dev"
is perf_destroys 0 IOPS blobfs-nvme perf "$dev" -w write -t 1 -o 1M --destroy
is destroyed 8 '' fsck.blobfs -n -f "$dev"
end_of_target guard_keeps_to_the_specification
# A signature at the end.
rm img && raid img 512M
serve --size 512M --file img
refused perf_sees_the_end 1 'holds a linux_raid_member signature' blobfs-nvme perf "$dev" -w write
is mkfs_wipes_the_end 0 'Made BlobFS' mkfs.blobfs -f "$dev"
end_of_target end_keeps_to_the_specification
blkid -p img >.out 2>&1 && bad the_end_is_wiped 'a signature is left' || ok the_end_is_wiped

# Stopped early it says what it has found.
serve --size 64M --null
blobfs-nvme perf "$dev" -t 50 >.out 2>.err &
perf=$!
sleep 1
kill -INT $perf
wait $perf && grep -q IOPS .out && ok perf_interrupted || bad perf_interrupted 'no result'
# A controller that dies ends it.
blobfs-nvme perf "$dev" -t 50 >.out 2>.err &
perf=$!
sleep 1
kill -KILL $target
wait $target 2>/dev/null
wait $perf
[ $? = 1 ] && grep -q 'No such device' .err && ok perf_of_a_dying_controller || bad perf_of_a_dying_controller "exit code $?"

# ---- the machine ----
# made DRIVER GROUPS HUGE: a machine of paper with a controller at 0000:01:00.0
made() {
	rm -rf r
	pci=r/sys/bus/pci/devices/0000:01:00.0
	mkdir -p $pci/nvme r/sys/bus/pci/drivers/$1 r/sys/kernel/mm/hugepages/hugepages-2048kB r/proc/self r/dev/vfio \
		r/sys/bus/pci/devices/0000:00:02.0
	echo 0x030000 >r/sys/bus/pci/devices/0000:00:02.0/class
	echo 0x010802 >$pci/class
	echo 0x144d >$pci/vendor
	echo 0xa80a >$pci/device
	echo 0 >$pci/numa_node
	ln -s ../../drivers/$1 $pci/driver
	echo "$3" >r/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages
	echo "$3" >r/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages
	: >r/proc/self/mounts
	[ "$2" = 0 ] || {
		mkdir -p r/sys/kernel/iommu_groups/7/devices/0000:01:00.0
		ln -s ../../../../kernel/iommu_groups/7 $pci/iommu_group
		: >r/dev/vfio/7
	}
}
kernel_has() { # DISK BLOCKS: as the kernel's driver shows it
	mkdir -p $pci/nvme/nvme0/$1 r/sys/class/block/$1/holders
	echo "Paper SSD 990  " >$pci/nvme/nvme0/model
	echo S123 >$pci/nvme/nvme0/serial
	echo "$2" >r/sys/class/block/$1/size
}

mkdir empty
is list_of_nothing 0 'There is no NVMe controller' blobfs-nvme list --root empty
is list_of_this_machine 0 hugepages: blobfs-nvme list
refused list_takes_no_device 2 'too many' blobfs-nvme list "$dev"

made vfio-pci 1 64
run blobfs-nvme list --root r --json
has ready "[c['address'] for c in j['controllers']] == ['0000:01:00.0'] and j['controllers'][0]['ready'] and j['controllers'][0]['iommu_group'] == '7' and j['controllers'][0]['todo'] == [] and j['machine']['hugepages'][0]['free'] == 64"
is ready_text 0 '0000:01:00.0  vfio-pci .*\[144d:a80a\].*ready$' blobfs-nvme list --root r
is ready_says_the_device 0 'identify nvme:0000:01:00.0' blobfs-nvme list --root r
made vfio-pci 1 0
is without_huge_pages_it_is_ready_too 0 'vfio-pci .*ready$' blobfs-nvme list --root r
is but_better_with_them 0 'dpdk-hugepages.py --pagesize 2M --setup 1G .*better' blobfs-nvme list --root r
gigantic=r/sys/kernel/mm/hugepages/hugepages-1048576kB
mkdir $gigantic
echo 4 | tee $gigantic/nr_hugepages >$gigantic/free_hugepages
is and_gigantic_ones_do_not_help 0 'dpdk-hugepages.py --pagesize 2M --setup 1G .*better' blobfs-nvme list --root r
rm r/dev/vfio/7
is no_access 0 'chown $USER /dev/vfio/7' blobfs-nvme list --root r

made nvme 1 0
kernel_has nvme0n1 2097152
is kernel_has_it 0 'nvme .*Paper SSD 990 .*1 GiB  not ready' blobfs-nvme list --root r
is how_to_bind 0 'dpdk-devbind.py --bind=vfio-pci 0000:01:00.0' blobfs-nvme list --root r
is how_to_get_hugepages 0 'dpdk-hugepages.py --pagesize 2M --setup 1G' blobfs-nvme list --root r
is how_to_load_vfio 0 'modprobe vfio-pci' blobfs-nvme list --root r
echo '/dev/nvme0n1p2 /home ext4 rw 0 0' >r/proc/self/mounts
is mounted 0 'mounted on /home: free it first' blobfs-nvme list --root r
run blobfs-nvme list --root r --json
has mounted_json "j['controllers'][0]['used'] == 'mounted on /home' and not j['controllers'][0]['ready'] and j['controllers'][0]['model'] == 'Paper SSD 990' and j['controllers'][0]['size'] == 1 << 30"
: >r/proc/self/mounts
mkdir -p r/sys/class/block/nvme0n1/nvme0n1p1/holders/dm-3
is held 0 'held by dm-3' blobfs-nvme list --root r
rm -r r/sys/class/block/nvme0n1/nvme0n1p1
echo 'another disk' >r/proc/swaps
echo '/dev/nvme0n11p1 partition 1 0 -2' >>r/proc/swaps
is of_another_name 0 'GiB  not ready' blobfs-nvme list --root r
mkdir -p r/sys/bus/pci/drivers/ahci r/sys/bus/pci/devices/0000:01:00.1 r/sys/kernel/iommu_groups/7/devices/0000:01:00.1
echo 0x010601 >r/sys/kernel/iommu_groups/7/devices/0000:01:00.1/class
ln -s ../../../../../bus/pci/drivers/ahci r/sys/kernel/iommu_groups/7/devices/0000:01:00.1/driver
is not_alone_in_its_group 0 'group 7 is 0000:01:00.1 (ahci)' blobfs-nvme list --root r

made nvme 0 64
kernel_has nvme0c0n1 2097152
mkdir -p r/sys/class/block/nvme0n1
echo 4194304 >r/sys/class/block/nvme0n1/size
is no_iommu 0 'dpdk-devbind.py --bind=uio_pci_generic 0000:01:00.0' blobfs-nvme list --root r
is a_disk_of_two_paths 0 '2 GiB' blobfs-nvme list --root r
made uio_pci_generic 0 0
is uio_needs_huge_pages 0 'uio_pci_generic .* not ready$' blobfs-nvme list --root r
made uio_pci_generic 0 64
is uio_is_ready 0 'uio_pci_generic .* ready$' blobfs-nvme list --root r
exit $status
