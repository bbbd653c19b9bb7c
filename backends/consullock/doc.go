// Package consullock takes locks in Consul.
package consullock
