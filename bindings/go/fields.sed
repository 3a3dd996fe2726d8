# godefs output to Go's names: Struct_size becomes StructSize, what callers must not set becomes unexported, pointers become
# integers (they only ever hold C addresses, which the collector must not look at), and enumerations get their types.
s|^// cgo .*|// cgo -godefs, fields.sed; see ../generate.sh|
s/\*(_Ctype_[A-Za-z_]+|int8|byte|float32)$/uintptr/
/^\t\t/ s/([a-z0-9])_([a-z0-9])/\1\u\2/g
s/^\t\tKv/\t\tKV/
s/^\t\tEma/\t\tEMA/
s/^\t\tIo/\t\tIO/
s/^\t\t(StructSize|Size)\b/\t\tstructSize/
s/^\t\t(Reserved|Predictor|Uniforms|UniformCount|Importance|Path|HostMemory|HostBytes|Device)(Too)?\t+(uintptr|uint32|uint64)/\t\t\l\1\2 \3/
s/^\t\tError\t/\t\terrorOut\t/
s/^\t\t(Method|Type|Grouping|Tail|Pooling)(\t+)uint32/\t\t\1\2\1/
s/^\t\t(Storage|[A-Z][a-z]+Type|PredictorArithmetic)(\t+)uint32/\t\t\1\2Type/
