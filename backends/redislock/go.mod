module github.com/swanlake-io/swanlock/backends/redislock

go 1.26.0

replace github.com/swanlake-io/swanlock => ../../

require (
	github.com/redis/go-redis/v9 v9.23.0
	github.com/swanlake-io/swanlock v0.0.0
	go.uber.org/goleak v1.3.0
)

require (
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	go.uber.org/atomic v1.12.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)
