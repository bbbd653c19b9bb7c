module github.com/swanlake-io/swanlock

go 1.26
