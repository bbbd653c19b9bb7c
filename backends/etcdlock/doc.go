// Package etcdlock takes locks in etcd.
package etcdlock
