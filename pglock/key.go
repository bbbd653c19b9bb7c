package pglock

type Key int64

func KeyOf(target string) Key { return 0 }
