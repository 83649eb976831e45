# SPDX-License-Identifier: BSD-2-Clause
# For building the plugin into RocksDB itself: in RocksDB's tree, `ln -s …/rocksdb_env plugin/blobfs`, then
# `make ROCKSDB_PLUGINS=blobfs USE_RTTI=1 …`. This project is to be built before: its build/lib is linked.
blobfs_ROOT := $(abspath $(realpath plugin/blobfs)/..)
blobfs_SOURCES = directory.cc file.cc fs.cc lock.cc mount.cc names.cc random.cc randomrw.cc register.cc \
	sequential.cc status.cc store.cc uri.cc writable.cc
blobfs_HEADERS = blobfs_env.h
blobfs_CXXFLAGS = -I$(blobfs_ROOT)
blobfs_LDFLAGS = -L$(blobfs_ROOT)/build/lib -Wl,-rpath,$(blobfs_ROOT)/build/lib -u blobfs_rocksdb_registered \
	-lblobfs_fuse -lblobfs $(shell pkg-config --libs fuse3)
