module kvsift.dev/kvsift

go 1.19
